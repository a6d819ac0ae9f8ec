"""Retention: a finished tree goes when it is old enough, and nothing else does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from polos import ExecutionNotFoundError, WorkflowContext, workflow
from polos.engine import retention
from polos.errors import UsageError, WorkflowDefinitionError
from polos.store.sqlite.retention import prune
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import Simulation
from polos.workflow.registry import Registry
from tests.sim.helpers import by_hand, pass_time, turns

HOUR = 3600.0


async def ids(simulation: Simulation) -> set[str]:
    return {each["id"] for each in await simulation.client.list_executions(limit=1000)}


async def ended(simulation: Simulation, workflow: Any, **options: Any) -> str:
    """Run a workflow without a wait to its end; returns its id."""
    handle = await workflow.invoke(simulation.client, **options)
    await turns()
    assert (await simulation.client.get_execution(handle.id))["status"] == "completed"
    return handle.id


@pytest.mark.parametrize("given", ["1h", 3600, timedelta(hours=1)])
async def test_a_finished_execution_goes_when_it_is_old_enough(given: Any) -> None:
    @workflow(retention=given)
    async def code(ctx: WorkflowContext) -> str:
        return await ctx.step.uuid("id")

    async with by_hand() as simulation:
        id = await ended(simulation, code)
        await pass_time(simulation, HOUR - 2, step=10)
        assert await ids(simulation) == {id}
        await pass_time(simulation, 200, step=10)
        assert await ids(simulation) == set()
        with pytest.raises(ExecutionNotFoundError):
            await simulation.client.get_execution(id)


async def test_without_retention_everything_is_kept() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None: ...

    async with by_hand() as simulation:
        id = await ended(simulation, code)
        await pass_time(simulation, 10_000 * HOUR, step=1000 * HOUR)
        assert await ids(simulation) == {id}


async def test_a_workflow_says_it_louder_than_its_worker() -> None:
    @workflow
    async def plain(ctx: WorkflowContext) -> None: ...

    @workflow(retention="3h")
    async def longer(ctx: WorkflowContext) -> None: ...

    @workflow(retention="forever")
    async def kept(ctx: WorkflowContext) -> None: ...

    async with by_hand() as simulation:
        simulation.node.pruning.default = HOUR
        first, second = await ended(simulation, plain), await ended(simulation, longer)
        third = await ended(simulation, kept)
        await pass_time(simulation, 2 * HOUR, step=60)
        assert await ids(simulation) == {second, third}
        assert first not in await ids(simulation)
        await pass_time(simulation, 100 * HOUR, step=600)
        assert await ids(simulation) == {third}


async def test_what_has_not_ended_stays_whatever_its_age() -> None:
    @workflow(retention="1h")
    async def sleeper(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("long", days=30)

    async with by_hand() as simulation:
        handle = await sleeper.invoke(simulation.client)
        await pass_time(simulation, 29 * 24 * HOUR, step=HOUR)
        assert await ids(simulation) == {handle.id}


async def test_children_stay_as_long_as_their_root() -> None:
    @workflow(retention="1h")
    async def child(ctx: WorkflowContext) -> str:
        return "c"

    @workflow(retention="2h")
    async def parent(ctx: WorkflowContext) -> str:
        answer = await ctx.step.invoke_and_wait("child", child)
        await ctx.step.wait_for("long", hours=10)
        return answer

    async with by_hand() as simulation:
        handle = await parent.invoke(simulation.client)
        await pass_time(simulation, 9 * HOUR, step=60)
        assert len(await ids(simulation)) == 2
        await pass_time(simulation, 2.9 * HOUR, step=60)
        assert (await simulation.client.get_execution(handle.id))["result"] == "c"
        assert len(await ids(simulation)) == 2
        await pass_time(simulation, 0.5 * HOUR, step=60)
        assert await ids(simulation) == set()


async def test_a_detached_child_keeps_its_tree() -> None:
    @workflow(retention="1h")
    async def child(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("long", hours=5)

    @workflow(retention="1h")
    async def parent(ctx: WorkflowContext) -> None:
        await ctx.step.invoke("child", child)

    async with by_hand() as simulation:
        await ended(simulation, parent)
        await pass_time(simulation, 4.9 * HOUR, step=60)
        assert len(await ids(simulation)) == 2
        await pass_time(simulation, 0.5 * HOUR, step=60)
        assert await ids(simulation) == set()


async def test_an_idempotency_key_goes_with_its_execution() -> None:
    @workflow(retention="1h")
    async def code(ctx: WorkflowContext) -> None: ...

    async with by_hand() as simulation:
        first = await ended(simulation, code, idempotency_key="k")
        assert await ended(simulation, code, idempotency_key="k") == first
        await pass_time(simulation, 1.2 * HOUR, step=60)
        assert await ended(simulation, code, idempotency_key="k") != first


async def test_a_worker_removes_only_what_it_can_run() -> None:
    @workflow(retention="1h")
    async def code(ctx: WorkflowContext) -> None: ...

    database = MemoryDatabase()
    async with by_hand(database=database) as simulation:
        id = await ended(simulation, code)
        other = Registry()

        async def strange(ctx: WorkflowContext) -> None: ...

        workflow(id="strange")(strange)
        other.register(workflow(id="another")(strange))
    async with by_hand(database=database, registry=other, retention=HOUR) as stranger:
        await pass_time(stranger, 100 * HOUR, step=HOUR)
        assert id in await ids(stranger)


async def test_a_backlog_goes_in_rounds_and_none_waits_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "TREES_MAX", 3)

    @workflow(retention="1h")
    async def one(ctx: WorkflowContext) -> None: ...

    @workflow(retention="1h")
    async def two(ctx: WorkflowContext) -> None: ...

    async with by_hand() as simulation:
        for _ in range(7):
            await ended(simulation, one)
            await ended(simulation, two)
        simulation.node.pruning.close()  # its own rounds would come in between
        simulation.clock.advance(2 * HOUR)
        kept = simulation.node.pruning.kept()
        assert kept == {"one": HOUR, "two": HOUR}
        left = [14 - (await simulation.node.engine.prune(kept)).trees]
        seen = [len(await simulation.client.list_executions(workflow_id="two"))]
        while await ids(simulation):
            done = await simulation.node.engine.prune(kept)
            left.append(left[-1] - done.trees)
            seen.append(len(await simulation.client.list_executions(workflow_id="two")))
        assert left == [11, 8, 5, 2, 0]
        assert seen == [7, 4, 4, 1, 0]


async def test_it_goes_on_after_a_crash_in_the_middle() -> None:
    @workflow(retention="1h")
    async def code(ctx: WorkflowContext) -> None: ...

    async with Simulation() as simulation:
        for _ in range(5):
            await code.run(simulation.client)
        kept = simulation.node.pruning.kept()
        simulation.crash()
        simulation.clock.jump(2 * HOUR)
        await simulation.restart()
        assert (await simulation.node.engine.prune(kept)).trees == 5
        assert await ids(simulation) == set()


@pytest.mark.parametrize("given", ["", "1y", 0, -1, True, timedelta(0), []])
def test_a_wrong_retention_is_refused_at_decoration(given: Any) -> None:
    async def code(ctx: WorkflowContext) -> None: ...

    with pytest.raises(WorkflowDefinitionError, match="retention=") as refused:
        workflow(retention=given)(code)
    assert isinstance(refused.value, UsageError)


async def test_who_slept_through_the_end_and_the_removal_is_told() -> None:
    @workflow(retention="1h")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", minutes=1)

    database = MemoryDatabase()
    async with (
        by_hand(database=database) as simulation,
        by_hand(database=database, registry=Registry()) as other,
    ):
        handle = await code.invoke(simulation.client)
        waiting = asyncio.ensure_future(other.client.get_handle(handle.id).result())
        await pass_time(other, 1)
        assert not waiting.done()
        await pass_time(simulation, 2 * HOUR, step=30)  # the other one is frozen meanwhile
        assert await ids(simulation) == set()
        await pass_time(other, 2 * HOUR, step=2 * HOUR)
        with pytest.raises(ExecutionNotFoundError):
            await waiting


async def test_a_start_whose_key_is_removed_at_that_moment_is_a_new_execution() -> None:
    @workflow(retention="1h")
    async def code(ctx: WorkflowContext) -> None: ...

    async with by_hand() as simulation:
        first = await ended(simulation, code, idempotency_key="k")
        connection = simulation.database.connection

        def remove(moment: str) -> None:
            # Between the commit that found the key and the look at the execution that has it.
            if moment == "after":
                simulation.on_transaction(None)
                assert prune(connection, [first], simulation.clock.now() + 1, 100).trees == 1

        simulation.on_transaction(remove)
        handle = await code.invoke(simulation.client, idempotency_key="k")
        assert handle.id != first
        await turns()
        assert await ids(simulation) == {handle.id}
