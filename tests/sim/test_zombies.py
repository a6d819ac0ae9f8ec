"""A worker that lost its execution and does not know it: it writes nothing, and leaves quietly."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from polos import AttemptSealed, PolosClient, WorkflowContext, WorkflowState, workflow
from polos.store.sqlite import queries, verbs
from polos.store.sqlite.connection import Location, connect
from polos.store.sqlite.store import CRASHES_MAX, MemoryDatabase
from polos.testing import Simulation
from tests.sim.helpers import by_hand, pass_time, rows_of, status_of, turns, until


class Tally(WorkflowState):
    count: int = 0


@pytest.mark.parametrize("shape", ["plain", "gather", "group", "caught"])
async def test_a_zombie_writes_nothing_and_seals_quietly(
    shape: str, caplog: pytest.LogCaptureFixture
) -> None:
    let_go = asyncio.Event()
    ran: list[int] = []
    told: list[str] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def body(key: str) -> None:
            ctx.state.count += 1
            if not ran:
                ran.append(1)
                await let_go.wait()

        async def step(key: str) -> None:
            await ctx.step.run(key, body, key)

        if shape == "plain":
            await step("a")
        elif shape == "gather":
            await asyncio.gather(step("a"), step("b"))
        elif shape == "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(step("a"))
                group.create_task(step("b"))
        else:
            try:
                await step("a")
            except AttemptSealed:
                told.append("sealed")
                try:
                    await step("after the seal")
                except AttemptSealed:
                    told.append("again")
                raise
        return ctx.state.count

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    database = MemoryDatabase()
    async with by_hand(database=database) as zombie:
        handle = await code.invoke(zombie.client)
        await until(lambda: ran)
        await turns()
        zombie.store.liveness.die()
        async with Simulation(database=database, clock=zombie.clock) as second:
            await second.node.runner.verify()
            await turns(100)
            expected = 1 if shape in ("plain", "caught") else 2
            assert await second.client.get_handle(handle.id).result() == expected
            rows = await rows_of(second, handle.id)
            let_go.set()
            await turns(100)
            assert await rows_of(second, handle.id) == rows
            assert await second.client.get_handle(handle.id).state() == {"count": expected}
            assert handle.id not in zombie.node.runner._attempts
    if shape == "caught":
        assert told == ["sealed", "again"]
    assert complaints == []
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "then",
    [
        "hears of it",
        "looks for work",
        "starts",
    ],
)
async def test_a_worker_that_was_declared_dead_owns_nothing_under_its_old_id(then: str) -> None:
    """Nobody looks after what a dead id owns: it would be `running` for ever."""
    ran: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def body() -> str:
            ran.append(simulation.node.engine.worker_id or "")
            if ran[-1] == worker_id:
                await asyncio.Event().wait()
            return ran[-1]

        return await ctx.step.run("a", body)

    async with by_hand() as simulation:
        assert isinstance(simulation.database, MemoryDatabase)
        worker_id = simulation.node.engine.worker_id
        assert worker_id is not None
        handle = await code.invoke(simulation.client)
        await until(lambda: ran)
        with simulation.database.connection as connection:
            verbs.stop_worker(
                connection, worker_id, simulation.clock.now(), crashed=True, crashes_max=CRASHES_MAX
            )
        if then == "looks for work":
            simulation.node.runner.on_queue()
        elif then == "starts":
            handle = await code.invoke(simulation.client)
        await turns()
        await pass_time(simulation, 5)
        assert await status_of(simulation, handle.id) == "completed"
        assert await handle.result() == simulation.node.engine.worker_id != worker_id


async def test_a_zombie_between_its_statement_and_its_commit(tmp_path: Path) -> None:
    """The takeover waits for its commit and sees its row; then the zombie is fenced."""
    url = f"sqlite:///{tmp_path}/polos.db?commit=thread"
    ran: list[str] = []
    order: list[str] = []
    hold, go = threading.Event(), threading.Event()
    second_step = asyncio.Event()

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def body(key: str) -> None:
            ran.append(key)
            ctx.state.count += 1
            if ran == ["a", "b"]:
                await second_step.wait()

        await ctx.step.run("a", body, "a")
        await ctx.step.run("b", body, "b")
        return ctx.state.count

    def take_over(execution_id: str, worker_id: str) -> list[str | None]:
        connection = connect(Location(f"sqlite:///{tmp_path}/polos.db"))
        connection.execute("BEGIN IMMEDIATE")
        order.append("takeover")
        now = 2_000_000_000_000_000
        verbs.stop_worker(connection, worker_id, now, crashed=True, crashes_max=CRASHES_MAX)
        keys = [row.key for row in queries.steps(connection, execution_id, execution_id)]
        connection.execute("COMMIT")
        connection.close()
        return keys

    async with PolosClient(url) as zombie:
        node = await zombie.node()

        def gate(moment: str) -> None:
            if moment == "before" and ran and not hold.is_set():
                hold.set()
                go.wait(20)
                order.append("commit")

        node.engine.store.gate = gate
        handle = await code.invoke(zombie)
        await asyncio.to_thread(hold.wait, 20)
        taking = asyncio.create_task(
            asyncio.to_thread(take_over, handle.id, node.engine.worker_id or "")
        )
        await turns()
        go.set()
        assert await taking == ["a"]
        assert order == ["commit", "takeover"]
        await until(lambda: len(ran) > 1, 1_000_000)  # the zombie goes on with b, or somebody else
        second_step.set()
        async with PolosClient(url) as second:
            assert await second.get_handle(handle.id).result(timeout=100) == 2
            steps = await second.get_steps(handle.id)
    assert ran.count("a") == 1
    assert [(step["step_key"], step["status"]) for step in steps] == [
        ("a", "completed"),
        ("b", "completed"),
    ]


async def test_an_answer_that_was_long_under_way_proves_no_claim() -> None:
    """A process that froze behind its question may be declared dead when it reads the answer."""
    ran: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("a", lambda: ran.append("a"))

    async with by_hand() as simulation:
        await code.invoke(simulation.client)
        await until(lambda: ran)
        store, runner = simulation.store, simulation.node.runner
        ask = store.survey

        async def slow(*arguments: Any, **options: Any) -> Any:
            found = await ask(*arguments, **options)
            simulation.clock.advance(8.0)
            return found

        store.survey = slow
        await runner.verify()
        assert simulation.clock.monotonic() > runner.stale_from
        store.survey = ask
        await runner.verify()
        assert simulation.clock.monotonic() < runner.stale_from
