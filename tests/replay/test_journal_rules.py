"""The rules of JOURNAL.md that no other file tests by its number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from polos import (
    AttemptSealed,
    PolosClient,
    Worker,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.core.transitions import crash_loop_reason
from polos.store.sqlite.store import CRASHES_MAX, Crashed, MemoryDatabase
from polos.testing import JournalFile, Simulation, replay
from polos.workflow import registry
from tests.sim.helpers import by_hand, pass_time, rows_of, status_of, turns, until


class Tally(WorkflowState):
    count: int = 0
    notes: list[str] = []
    by_key: dict[str, list[int]] = {}


async def noop() -> None:
    pass


# -- 4 ----------------------------------------------------------------------------------------


async def test_rule_4_no_body_begins_before_the_rows_that_ride_ahead_of_it_are_durable() -> None:
    sent: list[int] = []
    died: list[int] = []

    @workflow
    async def code(ctx: WorkflowContext) -> int:
        moment = await ctx.step.now("moment")

        async def send() -> int:
            sent.append(moment)
            return moment

        return await ctx.step.run("send", send)

    def gate(moment: str) -> None:
        if moment == "before" and sent:
            died.append(1)
            raise Crashed

    async with by_hand() as simulation:
        simulation.on_transaction(gate)
        handle = await code.invoke(simulation.client)
        await until(lambda: died)
        simulation.crash()
        simulation.clock.advance(100)
        await simulation.restart()
        await pass_time(simulation, 2)
        assert await simulation.client.get_handle(handle.id).result() == sent[0]
    assert len(sent) == 2
    assert len(set(sent)) == 1


async def test_rule_4_a_row_that_rides_is_not_lost() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> list[Any]:
        return [await ctx.step.now("a"), await ctx.step.uuid("b"), await ctx.step.random("c")]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        result = await handle.result()
        rows = await rows_of(simulation, handle.id)
        journal = await JournalFile.of(simulation.client, handle.id)
    assert [(row["key"], row["turn"]) for row in rows] == [("a", 1), ("b", 2), ("c", 3)]
    again = await replay(journal)
    assert (again.result, again.new_steps) == (result, [])


# -- 5 ----------------------------------------------------------------------------------------


async def test_rule_5_nothing_is_written_before_a_body_runs_and_later_a_started_row() -> None:
    seen: list[list[Any]] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def body() -> None:
            seen.append(await rows_of(simulation, ctx.execution_id))
            await asyncio.Event().wait()

        await ctx.step.run("slow", body)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 0.1)
        assert seen == [[]]
        assert await rows_of(simulation, handle.id) == []
        await pass_time(simulation, 0.3)
        (step,) = await simulation.client.get_steps(handle.id)
    assert (step["step_key"], step["status"], step["attempts"]) == ("slow", "running", 1)


# -- 6 ----------------------------------------------------------------------------------------


async def test_rule_6_rows_of_one_commit_are_handed_over_in_recorded_order() -> None:
    """Two executions are busy, so that rows gather while a commit is on its way."""
    orders: dict[str, list[list[str]]] = {"one": [], "two": []}

    @workflow
    async def code(ctx: WorkflowContext, name: str) -> list[str]:
        order: list[str] = []
        orders[name].append(order)

        async def step(key: str) -> None:
            await ctx.step.run(key, noop)
            order.append(key)
            ctx.step.idempotency_key(key)

        await asyncio.gather(*(step(f"s{n}") for n in range(5)))
        return order

    async with Simulation() as simulation:
        handles = [await code.invoke(simulation.client, name) for name in orders]
        for handle in handles:
            await handle.result()
        journals = [await JournalFile.of(simulation.client, handle.id) for handle in handles]
    assert any(len({row["turn"] for row in j.rows}) < len(j.rows) for j in journals)
    for journal in journals:
        assert (await replay(journal)).status == "completed"
    for live, replayed in orders.values():
        assert live == replayed


async def test_rule_6_a_row_that_nobody_asks_for_is_skipped_with_one_warning_after_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = ["a", "b", "c"]
    moments: list[float] = []
    clock: list[Callable[[], float]] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def step(key: str) -> None:
            await ctx.step.run(key, noop)
            if clock:
                moments.append(clock[0]())

        await asyncio.gather(*(step(key) for key in asked))
        await ctx.step.wait_for("w", days=1)

    database = MemoryDatabase()
    async with by_hand(database=database) as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        simulation.crash()
        asked[:] = ["c"]  # two rows are not asked for
        with caplog.at_level(logging.WARNING, "polos.replay"):
            await simulation.restart()
            await pass_time(simulation, 86_400, step=10_000)
            clock.append(simulation.clock.monotonic)
            begin = simulation.clock.monotonic()
            await pass_time(simulation, 3)
        assert await status_of(simulation, handle.id) == "completed"
    assert len([r for r in caplog.records if r.name == "polos.replay"]) == 1
    assert all(0.9 <= moment - begin <= 2.2 for moment in moments)


async def test_rule_6_what_was_skipped_is_still_found_when_it_is_asked_for_later() -> None:
    late: list[bool] = []
    ran: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> list[str]:
        async def give(key: str) -> str:
            ran.append(key)
            return key

        if not late:
            return await asyncio.gather(*(ctx.step.run(k, give, k) for k in ("a", "b")))
        b = asyncio.create_task(ctx.step.run("b", give, "b"))
        got = [await b]
        return [await ctx.step.run("a", give, "a"), *got]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == ["a", "b"]
        journal = await JournalFile.of(simulation.client, handle.id)
    late.append(True)
    again = await replay(journal, strict=False)
    assert (again.status, again.result, again.new_steps) == ("completed", ["a", "b"], [])
    assert ran == ["a", "b"]


# -- 7 ----------------------------------------------------------------------------------------


async def test_rule_7_loops_may_reuse_a_key_and_each_branch_counts_on() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> list[int]:
        async def give(n: int) -> int:
            return n

        return await asyncio.gather(*(ctx.step.run("s", give, n) for n in range(3)))

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == [0, 1, 2]
        rows = await rows_of(simulation, handle.id)
    assert sorted(row["key"] for row in rows) == ["s", "s#2", "s#3"]


# -- 8 and 9 ----------------------------------------------------------------------------------


async def test_rule_8_status_is_waiting_only_when_no_body_runs() -> None:
    go = asyncio.Event()

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.step.wait_for("w", days=1), ctx.step.run("body", go.wait))

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 5)
        assert await status_of(simulation, handle.id) == "running"
        go.set()
        await pass_time(simulation, 1)
        assert await status_of(simulation, handle.id) == "waiting"


async def test_rule_8_a_parked_coroutine_that_others_moved_on_is_dropped() -> None:
    lives: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.wait_for("one", days=1)
            await ctx.step.wait_for("two", days=1)
        except AttemptSealed:
            lives.append("sealed")
            raise
        lives.append("ended")
        return "done"

    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await pass_time(first, 1)
        # The first worker freezes: its timers do not run, its coroutine stays in memory.
        parked = first.node.runner
        for attempt in list(parked._parked.values()):
            for ask in list(attempt._asks):
                ask.timer.cancel()
        first.store.liveness.die()
        async with Simulation(database=database, clock=first.clock) as second:
            second.clock.advance(86_400)
            await second.node.runner.verify()
            await turns(100)
            record = await second.node.engine.require(handle.id)
            assert record.worker_id == second.node.engine.worker_id
            await pass_time(second, 86_500, step=100)
            assert await status_of(second, handle.id) == "completed"
    assert lives.count("ended") == 1


async def test_rule_9_sealing_lets_nothing_be_written_and_no_body_start() -> None:
    ran: list[str] = []
    told: list[str] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        async def body(key: str) -> None:
            ran.append(key)

        await ctx.step.run("a", body, "a")
        try:
            await ctx.step.wait_for("w", days=1)
        finally:
            for call in (
                lambda: ctx.step.run("late", body, "late"),
                lambda: ctx.step.now("late now"),
                lambda: ctx.step.wait_for("late wait", days=1),
            ):
                try:
                    await call()
                except AttemptSealed:
                    told.append("sealed")

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        before = await rows_of(simulation, handle.id)
        await simulation.client.close()
        assert told == ["sealed"] * 3
        assert ran == ["a"]
        await simulation.restart()
        assert await rows_of(simulation, handle.id) == before
        assert await status_of(simulation, handle.id) == "waiting"


async def test_rule_9_seal_is_no_exception_that_code_swallows() -> None:
    assert not issubclass(AttemptSealed, Exception)


# -- 10 ---------------------------------------------------------------------------------------


async def test_rule_10_a_crash_loop_parks_and_retry_releases() -> None:
    lives: list[int] = []
    healed: list[bool] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        await ctx.step.run("before", noop)

        async def deadly() -> str:
            lives.append(1)
            if not healed:
                await asyncio.Event().wait()
            return "healed"

        return await ctx.step.run("deadly", deadly)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        for life in range(1, CRASHES_MAX + 1):
            await until(lambda life=life: len(lives) == life)
            simulation.crash()
            await simulation.restart()
            await turns()
        client = simulation.client
        shown = await client.get_execution(handle.id)
        assert shown["status"] == "waiting"
        assert shown["blocked_reason"] == crash_loop_reason(CRASHES_MAX)
        await pass_time(simulation, 100, step=1)
        assert len(lives) == CRASHES_MAX
        healed.append(True)
        await client.retry_execution(handle.id)
        await pass_time(simulation, 1)
        assert await client.get_handle(handle.id).result() == "healed"
        assert (await client.get_execution(handle.id))["blocked_reason"] is None


async def test_rule_10_a_new_row_begins_the_count_anew() -> None:
    lives: list[int] = []

    @workflow
    async def code(ctx: WorkflowContext) -> int:
        async def deadly(n: int) -> None:
            lives.append(n)
            if lives.count(n) < 6:
                await asyncio.Event().wait()

        for n in range(3):
            await ctx.step.run("s", deadly, n)
        return len(lives)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        for life in range(1, 16):
            await until(lambda life=life: len(lives) >= life + (life - 1) // 5)
            simulation.crash()
            await simulation.restart()
            await turns()
        assert await simulation.client.get_handle(handle.id).result() == 18


async def test_rule_10_an_unregistered_workflow_parks_until_it_is_registered() -> None:
    @workflow(id="missing")
    async def code(ctx: WorkflowContext) -> str:
        await ctx.step.wait_for("w", seconds=10)
        return "found"

    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await pass_time(first, 1)
        first.crash()
        known = registry.default
        registry.default = registry.Registry()

        @workflow
        async def other(ctx: WorkflowContext) -> None:
            pass

        async with Simulation(database=database, clock=first.clock) as second:
            await pass_time(second, 30)
            shown = await second.client.get_execution(handle.id)
            if shown["blocked_reason"] is None:  # a wait that is due: nobody can run it
                assert shown["status"] in ("waiting", "queued")
            await pass_time(second, 30)
            shown = await second.client.get_execution(handle.id)
            assert shown["status"] == "waiting"
            second.crash()
        registry.default = known
        async with Simulation(database=database, clock=first.clock) as third:
            await pass_time(third, 5)
            assert await third.client.get_handle(handle.id).result() == "found"


async def test_rule_10_a_running_execution_of_an_unregistered_workflow_says_why() -> None:
    @workflow(id="missing")
    async def code(ctx: WorkflowContext) -> str:
        async def body() -> str:
            ran.append(1)
            if len(ran) == 1:
                await asyncio.Event().wait()
            return "found"

        return await ctx.step.run("s", body)

    ran: list[int] = []
    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await until(lambda: ran)
        first.crash()
        known = registry.default
        registry.default = registry.Registry()

        @workflow
        async def other(ctx: WorkflowContext) -> None:
            pass

        async with Simulation(database=database, clock=first.clock) as second:
            await pass_time(second, 5)
            shown = await second.client.get_execution(handle.id)
            assert shown["status"] == "waiting"
            assert shown["blocked_reason"] == (
                "no running process has registered the workflow missing"
            )
            second.crash()
        registry.default = known
        async with Simulation(database=database, clock=first.clock) as third:
            await pass_time(third, 5)
            assert await third.client.get_handle(handle.id).result() == "found"


async def test_rule_10_state_that_cannot_be_loaded_parks_and_retry_releases() -> None:
    @workflow(id="evolving", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        ctx.state.notes.append("x")
        await ctx.step.wait_for("w", seconds=10)
        return ctx.state.count

    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await pass_time(first, 1)
        first.crash()
        known = registry.default
        registry.default = registry.Registry()

        class Changed(WorkflowState):
            count: int = 0
            notes: int = 0

        @workflow(id="evolving", state_schema=Changed)
        async def changed(ctx: WorkflowContext) -> None:
            pass

        async with Simulation(database=database, clock=first.clock) as second:
            await pass_time(second, 20)
            shown = await second.client.get_execution(handle.id)
            assert shown["status"] == "waiting"
            assert "state cannot be loaded" in shown["blocked_reason"]
            assert shown["state"]["notes"] == ["x"]
            second.crash()
        registry.default = known
        async with Simulation(database=database, clock=first.clock) as third:
            await pass_time(third, 2)
            assert await status_of(third, handle.id) == "waiting"
            await third.client.retry_execution(handle.id)
            await pass_time(third, 2)
            assert await third.client.get_handle(handle.id).result() == 0


# -- 11 ---------------------------------------------------------------------------------------


async def test_rule_11_attempts_run_in_the_context_variables_of_the_workers_start() -> None:
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    @workflow
    async def leaf(ctx: WorkflowContext) -> None:
        seen.append(f"leaf {who.get()}")

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        seen.append(who.get())
        who.set("the workflow")
        await ctx.step.run("s", look)
        await ctx.step.run("t", lambda: seen.append(who.get()))
        await ctx.step.invoke_and_wait("child", leaf)

    async def look() -> None:
        seen.append(who.get())

    who.set("the worker's start")
    async with Simulation() as simulation:
        who.set("the caller")
        await code(simulation.client)
    assert seen == [
        "the worker's start",
        "the workflow",
        "the workflow",
        "leaf the worker's start",
    ]
    assert who.get() == "the caller"


# -- 14 and 15 --------------------------------------------------------------------------------


async def test_rule_14_recorded_state_never_goes_back() -> None:
    """Versions seen by a reader only grow, over deaths; so does a counter that only grows."""
    held: list[int] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def slow(n: int) -> None:
            held.append(n)
            if held.count(n) == 1:
                await asyncio.Event().wait()

        for n in range(4):
            ctx.state.count += 1
            await ctx.step.run("s", slow, n)
        return ctx.state.count

    versions: list[tuple[int, int]] = []
    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        for n in range(4):
            await until(lambda n=n: held.count(n) == 1)
            await pass_time(simulation, 0.5)
            for _ in range(2):
                shown = await simulation.client.get_execution(handle.id)
                versions.append((shown["state_version"], shown["state"]["count"]))
                simulation.crash()
                await simulation.restart()
                break
            await pass_time(simulation, 0.5)
            shown = await simulation.client.get_execution(handle.id)
            versions.append((shown["state_version"], shown["state"]["count"]))
        assert await simulation.client.get_handle(handle.id).result() == 4
    assert versions == sorted(versions)


async def test_rule_15_rows_are_pinned_only_where_the_root_task_was_alone() -> None:
    @workflow
    async def leaf(ctx: WorkflowContext) -> None:
        pass

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("alone", noop)
        await asyncio.gather(ctx.step.run("g1", noop), ctx.step.run("g2", turns))
        await ctx.step.uuid("id")
        await ctx.step.wait_for("wait", days=1)
        await ctx.step.invoke_and_wait("child", leaf)
        beside = asyncio.create_task(turns(2000))
        await ctx.step.run("beside a task", noop)
        await beside
        direct = ctx.step.run("direct", noop)
        await direct

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.result()
        rows = await rows_of(simulation, handle.id)
    assert {row["key"]: row["pinned"] for row in rows} == {
        "alone": True,
        "g1": False,
        "g2": False,
        "id": True,
        "wait": True,
        "child": True,
        "beside a task": False,
        "direct": True,
    }


async def test_rule_15_containers_are_changed_in_place_and_nothing_else_is_touched() -> None:
    lives: list[int] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[bool]:
        async def change() -> None:
            ctx.state.notes.append("body")
            ctx.state.by_key["a"].append(2)

        ctx.state.by_key["a"] = [1]
        ctx.state.by_key["b"] = [7]
        notes, inner = ctx.state.notes, ctx.state.by_key["a"]
        other, whole = ctx.state.by_key["b"], ctx.state.by_key
        lives.append(1)
        await ctx.step.run("change", change)
        kept = [
            ctx.state.notes is notes,
            ctx.state.by_key is whole,
            ctx.state.by_key["a"] is inner,
            ctx.state.by_key["b"] is other,
            notes == ["body"],
            inner == [1, 2],
        ]
        await ctx.step.wait_for("w", days=1)
        return kept

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        simulation.crash()
        await simulation.restart()
        await pass_time(simulation, 86_500, step=100)
        assert await simulation.client.get_handle(handle.id).result() == [True] * 6
    assert len(lives) == 2


async def test_rule_1_a_second_process_sees_the_ends_of_children_in_its_inbox(
    tmp_path: Any,
) -> None:
    """Children run in another process; their ends come as inbox items, one commit each."""
    url = f"sqlite:///{tmp_path}/polos.db"

    @workflow
    async def leaf(ctx: WorkflowContext, n: int) -> int:
        return n * 2

    @workflow
    async def parent(ctx: WorkflowContext) -> list[int]:
        return await asyncio.gather(*(ctx.step.invoke_and_wait(f"c{n}", leaf, n) for n in range(5)))

    async with PolosClient(url) as client:
        worker = Worker(PolosClient(url), workflows=[leaf, parent])
        serving = asyncio.create_task(worker.run())
        result = await parent.run(client, timeout=100)
        await worker.shutdown()
        await asyncio.gather(serving, return_exceptions=True)
    assert result == [0, 2, 4, 6, 8]
