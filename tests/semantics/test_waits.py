"""DESIGN §2, items 5 and 6: waiting costs nothing, and replay gives what was recorded."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

import pytest

from polos import BatchWorkflowInput, Polos, PolosClient, WorkflowContext, WorkflowState, workflow
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import JournalFile, Simulation, replay
from tests.sim.helpers import by_hand, pass_time, status_of, turns


class Tally(WorkflowState):
    count: int = 0


async def noop() -> str:
    return "done"


# -- 5: waiting -----------------------------------------------------------------------------------


async def test_2_5_a_wait_goes_on_in_place_without_replay() -> None:
    begun: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        begun.append(ctx.execution_id)
        here = object()
        await ctx.step.wait_for("w", days=30)
        return type(here).__name__

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == "object"
    assert begun == [handle.id]


async def test_2_5_a_waiting_execution_has_status_waiting_and_an_hour_of_it_costs_nothing() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", days=30)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        assert await status_of(simulation, handle.id) == "waiting"
        before = await JournalFile.of(simulation.client, handle.id)
        await pass_time(simulation, 3600, step=100)
        after = await JournalFile.of(simulation.client, handle.id)
    assert before == after


@pytest.mark.parametrize("days", [(1, 2, 3), (1, 1, 1)])
async def test_2_5_evicted_coroutines_are_replayed_once_and_in_time(days: tuple[int, ...]) -> None:
    begun: list[int] = []
    ended: list[float] = []

    @workflow
    async def code(ctx: WorkflowContext, n: int) -> int:
        begun.append(n)
        await ctx.step.run("before", noop)
        await ctx.step.wait_for("w", days=days[n])
        ended.append(simulation.clock.monotonic() / 86_400)
        return n

    async with Simulation(parked_max=1) as simulation:
        handles = [await code.invoke(simulation.client, n) for n in range(3)]
        assert [await handle.result() for handle in handles] == [0, 1, 2]
    assert [round(day, 2) for day in ended] == list(days)
    assert sorted(begun) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("parked_max", [0, 10])
async def test_2_5_user_code_never_sees_a_suspension(parked_max: int) -> None:
    """Evicted, plain `finally` code runs more than once (JOURNAL 9); in place it does not."""
    seen: list[str] = []

    class Context:
        async def __aenter__(self) -> None:
            seen.append("enter")

        async def __aexit__(self, *error: object) -> None:
            seen.append("exit")

    @workflow
    async def code(ctx: WorkflowContext) -> list[Any]:
        async def branch(n: int) -> int:
            try:
                await ctx.step.wait_for(f"w{n}", hours=n)
            finally:
                seen.append(f"finally {n}")
            return n

        async with Context():
            got = await asyncio.gather(branch(1), branch(2))
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(branch(n)) for n in (3, 4)]
            return [*got, *(task.result() for task in tasks)]

    async with Simulation(parked_max=parked_max) as simulation:
        assert await code(simulation.client) == [1, 2, 3, 4]
    expected = ["enter", "finally 1", "finally 2", "finally 3", "finally 4", "exit"]
    if parked_max:
        assert seen == expected
    assert set(seen) == set(expected)


async def test_2_5_what_is_asked_beside_a_wait_does_not_wait_for_it() -> None:
    @workflow
    async def leaf(ctx: WorkflowContext) -> str:
        return await ctx.step.run("leaf", noop)

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.step.wait_for("long", days=30),
            ctx.step.wait_for("short", seconds=1),
            ctx.step.run("step", noop),
            ctx.step.invoke_and_wait("child", leaf),
            ctx.step.uuid("id"),
        )

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 3)
        steps = {s["step_key"]: s["status"] for s in await simulation.client.get_steps(handle.id)}
        assert await status_of(simulation, handle.id) == "waiting"
    assert steps.pop("long") == "waiting"
    assert steps == dict.fromkeys(("short", "step", "child", "id"), "completed")


@pytest.mark.parametrize("verb", ["run", "uuid", "wait", "end"])
async def test_2_5_code_that_was_not_waiting_goes_on_while_the_rest_is_parked(verb: str) -> None:
    go = asyncio.Event()

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        wait = asyncio.create_task(ctx.step.wait_for("long", days=30))
        await go.wait()
        if verb == "run":
            await ctx.step.run("s", noop)
        elif verb == "uuid":
            await ctx.step.uuid("s")
        elif verb == "wait":
            await ctx.step.wait_for("s", seconds=1)
        wait.cancel()
        return "done"

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 2)
        go.set()
        await pass_time(simulation, 4)
        assert await status_of(simulation, handle.id) == "completed"


async def test_2_5_a_child_that_ends_for_nobody_wakes_its_parent_once_at_most() -> None:
    @workflow
    async def slow(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", seconds=60)

    @workflow
    async def code(ctx: WorkflowContext) -> int:
        child = asyncio.create_task(ctx.step.invoke_and_wait("child", slow))
        short = asyncio.create_task(ctx.step.wait_for("short", seconds=1))
        _, pending = await asyncio.wait({child, short}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await ctx.step.wait_for("long", days=1)
        return len(pending)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 100, step=1)
        before = simulation.store.commits
        await pass_time(simulation, 100, step=1)
        assert await status_of(simulation, handle.id) == "waiting"
        assert simulation.store.commits - before <= 2
        await pass_time(simulation, 86_400, step=1000)
        assert await status_of(simulation, handle.id) == "completed"
        assert await handle.result() == 1


async def test_2_5_a_restart_in_a_wait_changes_nothing() -> None:
    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        for _ in range(3):
            ctx.state.count += 1
            await ctx.step.wait_for("w", days=1)
        return ctx.state.count

    database = MemoryDatabase()
    async with by_hand(database=database) as simulation:
        handle = await code.invoke(simulation.client)
        for _ in range(3):
            await pass_time(simulation, 1)
            await simulation.client.close()
            await simulation.restart()
            await pass_time(simulation, 86_400, step=3600)
            await pass_time(simulation, 1)
        assert await status_of(simulation, handle.id) == "completed"
        assert await simulation.client.get_handle(handle.id).result() == 3


# -- 6: replay ------------------------------------------------------------------------------------


async def test_2_6_replay_delivers_results_in_recorded_order() -> None:
    orders: list[list[int]] = []
    delays = [9, 1, 5]

    @workflow
    async def code(ctx: WorkflowContext) -> list[int]:
        async def give(n: int) -> int:
            for _ in range(delays[n] * 20):
                await asyncio.sleep(0)
            return n

        order: list[int] = []
        orders.append(order)
        for one in asyncio.as_completed([ctx.step.run(f"s{n}", give, n) for n in range(3)]):
            order.append(await one)
        return order

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == [1, 2, 0]
        journal = await JournalFile.of(simulation.client, handle.id)
    delays.reverse()
    assert (await replay(journal)).result == [1, 2, 0]
    assert orders[0] == orders[1]


async def test_2_6_the_journal_is_read_in_one_query_per_attempt() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> int:
        for n in range(50):
            await ctx.step.run(f"s{n}", noop)
        await ctx.step.wait_for("w", days=1)
        return 1

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        simulation.crash()
        queries: list[str] = []

        def trace(cursor: Any, sql: str, bindings: Any) -> bool:
            if "FROM step" in sql and "body" in sql:
                queries.append(sql)
            return True

        await simulation.restart()
        assert simulation.database is not None
        simulation.database.connection.exec_trace = trace
        await pass_time(simulation, 90_000, step=3000)
        simulation.database.connection.exec_trace = None
        assert await status_of(simulation, handle.id) == "completed"
    assert len(queries) == 1


async def test_2_6_replay_never_waits_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    asked = ["a", "b"]

    @workflow
    async def code(ctx: WorkflowContext) -> list[str]:
        return await asyncio.gather(*(ctx.step.run(key, noop) for key in asked))

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.result()
        journal = await JournalFile.of(simulation.client, handle.id)
    asked[:] = ["b", "c", "d"]
    with caplog.at_level(logging.WARNING, "polos.replay"):
        again = await replay(journal, strict=False)
    assert again.status == "completed"
    assert sorted(again.new_steps) == ["c", "d"]
    assert [r.name for r in caplog.records] == ["polos.replay"]
    assert "'a'" in caplog.text
    strict = await replay(journal)
    assert strict.status == "failed"
    assert "'a'" in (strict.error or "")


async def test_2_6_a_step_that_lost_a_race_keeps_what_it_recorded() -> None:
    """The loser's row is durable before the code gives it up; then the process dies."""
    counted: list[int] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def count() -> None:
            ctx.state.count += 1

        tasks = [asyncio.create_task(ctx.step.run(f"r{n}", count)) for n in range(2)]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await ctx.step.run("c", noop)
        await turns(60)
        counted.append(ctx.state.count)
        await ctx.step.run("d", noop)
        return ctx.state.count

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == 2
        journal = await JournalFile.of(simulation.client, handle.id)
    assert [row["key"] for row in journal.rows] == ["r0", "r1", "c", "d"]
    for rows in (4, 3, 2):
        cut = JournalFile(journal.execution, journal.rows[:rows], journal.states)
        last = max(row["state_version"] for row in cut.rows)
        cut.states = [entry for entry in journal.states if entry["version"] <= last]
        again = await replay(cut)
        assert (again.result, again.state) == (2, {"count": 2})
    assert counted == [2] * 4


@pytest.mark.parametrize("kind", ["tasks", "plain"])
def test_2_5_the_end_of_the_loop_needs_no_report(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow
    async def tasks(ctx: WorkflowContext) -> None:
        waits = [asyncio.create_task(ctx.step.wait_for(f"w{n}", hours=1)) for n in range(3)]
        await asyncio.wait(waits)

    @workflow
    def plain(ctx: WorkflowContext) -> None:
        step: Any = ctx.step
        step.wait_for("w", hours=1)

    async def main() -> None:
        client = PolosClient(f"sqlite:///{tmp_path}/polos.db")
        handle = await (tasks if kind == "tasks" else plain).invoke(client)
        node = await client.node()
        while not node.runner._parked:  # noqa: ASYNC110 - only the worker knows
            await asyncio.sleep(0.01)
        assert await handle.state() is None

    asyncio.run(main())
    gc.collect()
    assert caplog.records == []


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("commit", ["thread", "inline"])
async def test_2_5_code_that_waits_behind_a_gather_is_waiting(
    tmp_path: Path, commit: str, turns: int
) -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.step.run("a", noop), ctx.step.run("b", noop))
        for _ in range(turns):
            await asyncio.sleep(0)
        await ctx.step.wait_for("w", hours=1)

    async with PolosClient(f"sqlite:///{tmp_path}/polos.db?commit={commit}") as client:
        handle = await code.invoke(client)
        while (await handle.get())["status"] != "waiting":  # noqa: ASYNC110 - the store is polled
            await asyncio.sleep(0.01)
        assert (await client.node()).runner.active == 0


async def test_2_5_children_find_room_while_their_parent_waits(tmp_path: Path) -> None:
    @workflow
    async def leaf(ctx: WorkflowContext, n: int) -> int:
        return await ctx.step.run("leaf", lambda: n)

    @workflow
    async def parent(ctx: WorkflowContext) -> int:
        await asyncio.gather(
            ctx.step.invoke_and_wait("first", leaf, 1), ctx.step.run("beside", noop)
        )
        inputs = [BatchWorkflowInput(id="leaf", payload=n) for n in range(3)]
        return sum(each.result for each in await ctx.step.batch_invoke_and_wait("rest", inputs))

    async with Polos(url=f"sqlite:///{tmp_path}/polos.db", max_concurrent_workflows=1) as polos:
        assert await parent(polos) == 3
