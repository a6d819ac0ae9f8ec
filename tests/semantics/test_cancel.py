"""DESIGN §2, item 7: cancellation and timeouts reach everything, and cannot stick."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

from polos import (
    ExecutionCancelledError,
    StepTimeoutError,
    WorkflowContext,
    WorkflowState,
    WorkflowTimeoutError,
    workflow,
)
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import JournalFile, Simulation, replay
from tests.sim.helpers import by_hand, pass_time, rows_of, status_of, turns, until


class Tally(WorkflowState):
    notes: list[str] = []


async def noop() -> None:
    pass


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_2_7_a_cancellation_is_journaled_requested_delivered_done() -> None:
    seen: list[str] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        try:
            await ctx.step.run("body", for_ever)
        except asyncio.CancelledError:
            seen.append(await status_of(simulation, ctx.execution_id))
            (row,) = await rows_of(simulation, ctx.execution_id)
            seen.append(row["kind"])
            ctx.state.notes.append("cleaned")
            await ctx.step.run("clean", noop)
            raise

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await turns()
        assert await handle.cancel() is True
        shown = await handle.get()
        assert shown["cancel_requested_at"] is not None
        await turns()
        with pytest.raises(ExecutionCancelledError):
            await handle.result()
        rows = await rows_of(simulation, handle.id)
        record = await simulation.node.engine.require(handle.id)
        assert record.cancel_delivered_at is not None
        assert await handle.state() == {"notes": ["cleaned"]}
        assert await handle.cancel() is False
        journal = await JournalFile.of(simulation.client, handle.id)
    assert seen == ["running", "cancel"]
    assert [(row["kind"], row["key"]) for row in rows] == [("cancel", None), ("run", "clean")]
    seen.clear()
    again = await replay(journal)
    assert again.status == "cancelled"


async def test_2_7_a_cancellation_reaches_steps_children_and_waits() -> None:
    cleaned: list[str] = []

    @workflow
    async def child(ctx: WorkflowContext, where: str) -> None:
        try:
            if where == "wait":
                await ctx.step.wait_for("w", days=9)
            else:
                await ctx.step.run("body", for_ever)
        finally:
            await ctx.step.run("clean", noop)
            cleaned.append(where)

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def branch() -> None:
            try:
                await ctx.step.wait_for("w", days=9)
            finally:
                cleaned.append("branch")

        await asyncio.gather(
            ctx.step.invoke_and_wait("a", child, "wait"),
            ctx.step.invoke_and_wait("b", child, "body"),
            ctx.step.run("body", for_ever),
            branch(),
        )

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 2)
        await handle.cancel()
        await pass_time(simulation, 2)
        everybody = await simulation.client.list_executions()
    assert [each["status"] for each in everybody] == ["cancelled"] * 3
    assert sorted(cleaned) == ["body", "branch", "wait"]


async def test_2_7_a_queued_execution_is_cancelled_at_once() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("body", for_ever)

    async with by_hand(concurrency=1) as simulation:
        first = await code.invoke(simulation.client)
        second = await code.invoke(simulation.client)
        await pass_time(simulation, 1)  # a start shows as running with its first commit, or soon
        await second.cancel()
        assert await status_of(simulation, second.id) == "cancelled"
        assert await status_of(simulation, first.id) == "running"


@pytest.mark.parametrize("how", ["wait", "body", "swallow"])
@pytest.mark.parametrize("why", ["cancel", "timeout"])
async def test_2_7_past_the_deadline_it_is_forced(how: str, why: str) -> None:
    @workflow(run_timeout_seconds=60 if why == "timeout" else None)
    async def code(ctx: WorkflowContext) -> None:
        try:
            await ctx.step.wait_for("w", days=1)
        finally:
            if how == "wait":
                await ctx.step.wait_for("clean", days=365)
            elif how == "body":
                await ctx.step.run("clean", for_ever)
            else:
                with contextlib.suppress(asyncio.CancelledError):  # the deadline's
                    await for_ever()
                await for_ever()

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        if why == "cancel":
            await pass_time(simulation, 2)
            await handle.cancel()
        else:
            await pass_time(simulation, 61, step=0.5)
        await pass_time(simulation, 20, step=0.5)
        assert await status_of(simulation, handle.id) in ("running", "waiting")
        await pass_time(simulation, 20, step=0.5)
        expected = "cancelled" if why == "cancel" else "failed"
        assert await status_of(simulation, handle.id) == expected


async def test_2_7_cancelled_when_nobody_runs_it() -> None:
    @workflow(id="lost")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("body", for_ever)

    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await turns()
        first.crash()
        other = _registry_of_another_program()
        async with Simulation(database=database, clock=first.clock, registry=other) as second:
            await pass_time(second, 3)
            await second.client.cancel_execution(handle.id)
            await pass_time(second, 40, step=0.5)
            assert await status_of(second, handle.id) == "cancelled"


async def test_2_7_out_of_time_when_nobody_runs_it() -> None:
    @workflow(id="lost", run_timeout_seconds=60)
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("body", for_ever)

    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await turns()
        first.crash()
        other = _registry_of_another_program()
        async with Simulation(database=database, clock=first.clock, registry=other) as second:
            await pass_time(second, 120, step=0.5)
            assert await status_of(second, handle.id) == "failed"


def _registry_of_another_program() -> Any:
    from polos.workflow import registry

    mine = registry.default
    registry.default = registry.Registry()

    @workflow
    async def something_else(ctx: WorkflowContext) -> None:
        pass

    other, registry.default = registry.default, mine
    return other


async def test_2_7_a_function_in_a_thread_that_ignores_it_is_abandoned() -> None:
    begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        def stubborn() -> None:
            begun.set()
            ctx.state.notes.append("never recorded")
            go.wait(20)
            ended.set()

        await ctx.step.run("stubborn", stubborn)

    @workflow
    async def other(ctx: WorkflowContext) -> int:
        return await ctx.step.run("plain", lambda: 7)

    async with by_hand(threads=1) as simulation:
        handle = await code.invoke(simulation.client)
        await asyncio.to_thread(begun.wait, 10)
        await handle.cancel()
        with pytest.raises(ExecutionCancelledError):
            await handle.result()
        assert simulation.node.runner.threads.abandoned == 1
        assert await other(simulation.client) == 7  # its thread was replaced
        go.set()
        await asyncio.to_thread(ended.wait, 10)
        await until(lambda: simulation.node.runner.threads.abandoned == 0, 1_000_000)
        assert await handle.state() == {"notes": []}
        assert [s["status"] for s in await simulation.client.get_steps(handle.id)] == []


@pytest.mark.parametrize("where", ["wait", "body", "code"])
async def test_2_7_a_plain_workflow_is_told_where_it_asks_and_cleans_up(where: str) -> None:
    begun, go = threading.Event(), threading.Event()
    seen: list[str] = []

    def hold() -> None:
        begun.set()
        go.wait(20)

    @workflow
    def code(ctx: WorkflowContext) -> None:
        step: Any = ctx.step
        try:
            if where == "code":
                hold()
            elif where == "body":
                step.run("hold", hold)
            step.wait_for("w", days=1)
            seen.append("went on")
        except Exception:
            seen.append("taken for an error")
        except asyncio.CancelledError:
            seen.append("cancelled")
            step.run("clean", lambda: seen.append("cleaned"))
            raise

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        if where == "wait":
            await until(lambda: simulation.node.runner.active == 0, 1_000_000)
        else:
            await asyncio.to_thread(begun.wait, 10)
        await handle.cancel()
        if where == "code":
            await turns()
            go.set()
        with pytest.raises(ExecutionCancelledError):
            await handle.result()
        go.set()
        assert seen == ["cancelled", "cleaned"]


async def test_2_7_a_plain_workflow_that_asks_for_nothing_is_forced() -> None:
    begun, go = threading.Event(), threading.Event()
    ended: list[str] = []

    @workflow
    def code(ctx: WorkflowContext) -> None:
        begun.set()
        go.wait(20)
        step: Any = ctx.step
        try:
            step.run("late", lambda: ended.append("late"))
        finally:
            ended.append("told")

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await asyncio.to_thread(begun.wait, 10)
        await handle.cancel()
        await turns()
        await pass_time(simulation, 31)
        with pytest.raises(ExecutionCancelledError):
            await handle.result()
        assert simulation.node.runner.plain.threads.abandoned == 1
        go.set()
        await until(lambda: simulation.node.runner.plain.threads.abandoned == 0, 1_000_000)
    assert ended == ["told"]


async def test_2_7_run_timeout_ends_an_execution_and_lets_it_clean_up() -> None:
    cleaned: list[float] = []

    @workflow(run_timeout_seconds=3600)
    async def code(ctx: WorkflowContext) -> None:
        try:
            await ctx.step.wait_for("w", days=1)
        finally:
            await ctx.step.run("clean", noop)
            cleaned.append(simulation.clock.monotonic())

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        with pytest.raises(WorkflowTimeoutError):
            await handle.result()
        shown = await handle.get()
    assert shown["status"] == "failed"
    assert shown["error"] == "Execution timed out after 3600 seconds"
    assert [round(moment) for moment in cleaned] == [3600]


async def test_2_7_a_step_timeout_bounds_each_try() -> None:
    begun: list[float] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def hang() -> None:
            begun.append(simulation.clock.monotonic())
            await for_ever()

        try:
            await ctx.step.run("s", hang, timeout=10, max_retries=1, base_delay=1)
        except StepTimeoutError as error:
            return str(error)
        return ""

    async with Simulation() as simulation:
        text = await code(simulation.client)
    assert [round(moment) for moment in begun] == [0, 11]
    assert "did not end within 10 seconds" in text


async def test_2_7_a_cancellation_that_comes_in_every_moment_is_seen() -> None:
    """Before the first step, in a body, while parking, parked, while it is being resumed."""

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("a", noop)
        await ctx.step.wait_for("w", seconds=1)
        await ctx.step.run("b", noop)
        await ctx.step.wait_for("v", days=1)

    for moment in range(60):
        async with by_hand() as simulation:
            handle = await code.invoke(simulation.client)
            for n in range(moment):
                await asyncio.sleep(0)
                if n % 10 == 9:
                    simulation.clock.advance(0.6)
            await handle.cancel()
            await pass_time(simulation, 3, step=0.5)
            assert await status_of(simulation, handle.id) == "cancelled", moment
