"""Long histories: the bound of a journal, and `ctx.continue_as_new`."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    ExecutionCancelledError,
    ExecutionFailedError,
    HistoryTooLongError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.errors import InvalidPayloadError, InvalidStateError, UsageError, WorkflowDefinitionError
from polos.testing import Simulation
from tests.client.test_sagas import until_waiting


class Count(WorkflowState):
    n: int = 0


class Page(BaseModel):
    number: int


async def test_the_bound_warns_at_half_and_fails_the_execution(
    simulation: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    undone: list[str] = []

    @workflow(id="long.bound", max_history=10, max_retries=3)
    async def bound(ctx: WorkflowContext) -> None:
        await ctx.step.run("first", dict, compensate=lambda: undone.append("first"))
        for n in range(100):
            try:
                await ctx.step.run(f"s{n}", int, n)
            except HistoryTooLongError:
                continue

    handle = await bound.invoke(simulation.client)
    with caplog.at_level(logging.WARNING), pytest.raises(ExecutionFailedError) as error:
        await handle.result()
    assert "has reached 10 rows of journal before step 's9'" in error.value.error
    assert "ctx.continue_as_new" in error.value.error
    assert caplog.text.count("has a journal of 5 rows; at 10 it fails") == 1
    assert undone == ["first"]
    steps = await simulation.client.get_steps(handle.id)
    assert len(steps) == 11


async def test_the_bound_of_the_worker_holds_for_all() -> None:
    async with Simulation(history_max=3) as simulation:

        @workflow(id="long.worker")
        async def code(ctx: WorkflowContext) -> None:
            for n in range(4):
                await ctx.step.run(f"s{n}", int, n)

        with pytest.raises(ExecutionFailedError, match="reached 3 rows"):
            await code(simulation.client)


@pytest.mark.parametrize("limit", [0, -1, "many", True, 1.5])
def test_a_bound_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(WorkflowDefinitionError, match="max_history is an int of at least 1"):

        @workflow(id="long.refused", max_history=limit)
        async def code(ctx: WorkflowContext) -> None: ...


async def test_runs_follow_each_other_in_place(simulation: Simulation) -> None:
    seen: list[Any] = []

    @workflow(id="long.pages", state_schema=Count)
    async def pages(ctx: WorkflowContext, page: Page) -> str:
        key = ctx.step.idempotency_key("load")
        uuid = await ctx.step.uuid("u")
        await ctx.step.run("load", int, page.number)
        ctx.state.n += page.number
        seen.append((ctx.generation, page.number, ctx.history_length, key, uuid))
        if page.number < 3:
            return ctx.continue_as_new({"number": page.number + 1})
        return f"{ctx.state.n} in all"

    handle = await pages.invoke(simulation.client, Page(number=1))
    assert await handle.result() == "6 in all"
    assert [each[:3] for each in seen] == [(0, 1, 2), (1, 2, 2), (2, 3, 2)]
    assert len({each[3] for each in seen}) == len({each[4] for each in seen}) == 3
    shown = await simulation.client.get_execution(handle.id)
    assert (shown["generation"], shown["payload"]) == (2, {"number": 3})
    assert shown["state"] == {"n": 6}
    steps = await simulation.client.get_steps(handle.id)
    assert [s["step_key"] for s in steps] == ["u", "load"]


@pytest.mark.parametrize("state", [{"n": 7}, Count(n=7)])
async def test_the_state_is_replaced(simulation: Simulation, state: Any) -> None:
    @workflow(id="long.replaced", state_schema=Count)
    async def code(ctx: WorkflowContext) -> int:
        if not ctx.generation:
            ctx.state.n = 1
            ctx.continue_as_new(state=state)
        await ctx.step.run("s", dict)
        return ctx.state.n

    assert await code(simulation.client) == 7


async def test_what_does_not_fit_is_refused_and_the_run_goes_on(simulation: Simulation) -> None:
    @workflow(id="long.unfit", state_schema=Count)
    async def code(ctx: WorkflowContext, page: Page) -> int:
        with pytest.raises(InvalidPayloadError):
            ctx.continue_as_new({"number": "x"})
        with pytest.raises(InvalidStateError):
            ctx.continue_as_new(page, state={"n": "x"})

        async def inside() -> None:
            with pytest.raises(UsageError, match="inside the body of step 's'"):
                ctx.continue_as_new(page)

        await ctx.step.run("s", inside)
        return ctx.generation

    assert await code(simulation.client, Page(number=1)) == 0
    with pytest.raises(UsageError, match="built by hand"):
        WorkflowContext("w", "e").continue_as_new()


async def test_a_state_without_schema_is_refused(simulation: Simulation) -> None:
    @workflow(id="long.stateless")
    async def code(ctx: WorkflowContext) -> None:
        with pytest.raises(InvalidStateError, match="has no state"):
            ctx.continue_as_new(state={"n": 1})

    await code(simulation.client)


async def test_a_parent_waits_on_and_late_children_are_not_heard(simulation: Simulation) -> None:
    ended: list[int] = []

    @workflow(id="long.slow")
    async def slow(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.wait_for("nap", seconds=n)
        ended.append(n)
        return n

    @workflow(id="long.child")
    async def child(ctx: WorkflowContext) -> int:
        if not ctx.generation:
            task = asyncio.create_task(ctx.step.invoke_and_wait("late", slow, 50))
            await ctx.step.wait_for("a moment", seconds=1)
            assert not task.done()
            ctx.continue_as_new()
        await ctx.step.wait_for("long", seconds=100)
        return await ctx.step.invoke_and_wait("late", slow, 1)

    @workflow(id="long.parent")
    async def parent(ctx: WorkflowContext) -> int:
        return await ctx.step.invoke_and_wait("child", child)

    assert await parent(simulation.client) == 1
    assert ended == [50, 1]


async def test_a_plain_function_continues_as_new(simulation: Simulation) -> None:
    @workflow(id="long.plain")
    def plain(ctx: WorkflowContext, n: int) -> int:
        steps: Any = ctx.step
        n = steps.run("s", int, n + 1)
        return ctx.continue_as_new(n) if n < 4 else n

    assert await plain(simulation.client, 0) == 4


async def test_out_of_a_task_group(simulation: Simulation) -> None:
    @workflow(id="long.group")
    async def code(ctx: WorkflowContext) -> int:
        async def branch() -> None:
            await ctx.step.run("s", dict)
            ctx.continue_as_new()

        if not ctx.generation:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch())
                group.create_task(ctx.step.wait_for("nap", days=1))
        return ctx.generation

    assert await code(simulation.client) == 1


async def test_a_cancellation_reaches_the_next_run(simulation: Simulation) -> None:
    @workflow(id="long.cancelled")
    async def code(ctx: WorkflowContext) -> None:
        if not ctx.generation:
            ctx.continue_as_new()
        await ctx.step.wait_for("nap", days=1)

    handle = await code.invoke(simulation.client)
    await until_waiting(simulation, handle.id)
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()


async def test_it_is_refused_while_something_could_be_undone(simulation: Simulation) -> None:
    undone: list[str] = []

    @workflow(id="long.saga")
    async def code(ctx: WorkflowContext, how: str) -> int:
        if ctx.generation:
            raise ValueError("late")
        await ctx.step.run("hotel", str, "hotel", compensate=undone.append)
        await ctx.step.run("car", str, "car", compensate=undone.append)
        if how == "undo":
            assert await ctx.step.compensate() == []
        ctx.continue_as_new(how, drop_compensations=how == "drop")

    with pytest.raises(ExecutionFailedError, match="does not know how to undo 'hotel', 'car'"):
        await code(simulation.client, "ask")
    assert undone == ["car", "hotel"]
    for how, expected in (("drop", []), ("undo", ["car", "hotel"])):
        undone.clear()
        with pytest.raises(ExecutionFailedError, match="late"):
            await code(simulation.client, how)
        assert undone == expected
