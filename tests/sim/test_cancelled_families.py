"""A cancelled execution ends only once its children were asked to end: nobody else would ask."""

from __future__ import annotations

import asyncio

import pytest

from polos import WorkflowContext, workflow
from tests.sim.helpers import by_hand, pass_time, status_of, until


@pytest.mark.parametrize("how", ["propagates", "returns", "raises", "group"])
async def test_no_child_is_left_behind_by_a_cancelled_parent(how: str) -> None:
    @workflow
    async def child(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("ever", days=1)

    @workflow
    async def parent(ctx: WorkflowContext) -> None:
        try:
            if how == "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(ctx.step.invoke_and_wait("child", child))
            else:
                await ctx.step.invoke_and_wait("child", child)
        except asyncio.CancelledError:
            if how == "raises":
                raise ValueError("while it cleaned up") from None
            if how != "returns":
                raise

    async with by_hand() as simulation:
        assert simulation.database is not None
        connection = simulation.database.connection
        statement = (
            "SELECT p.completed_at IS NOT NULL, c.cancel_requested_at IS NOT NULL "
            "FROM execution p JOIN execution c ON c.parent_id = p.id"
        )
        handle = await parent.invoke(simulation.client)
        await until(
            lambda: list(connection.execute("SELECT 1 FROM execution WHERE parent_id > ''"))
        )
        await pass_time(simulation, 0.5)
        # The request saw the parent only: its child was being started.
        connection.execute(
            "UPDATE execution SET cancel_requested_at = ? WHERE id = ?",
            (simulation.clock.now(), handle.id),
        )
        go, engine = asyncio.Event(), simulation.node.engine
        ask = engine.cancel_children

        async def later(root_id: str, execution_id: str) -> None:
            await go.wait()
            await ask(root_id, execution_id)

        engine.cancel_children = later
        await simulation.node.runner.verify()
        await pass_time(simulation, 2)
        assert list(connection.execute(statement)) == [(0, 0)]
        go.set()
        await pass_time(simulation, 2)
        assert list(connection.execute(statement)) == [(1, 1)]
        assert await status_of(simulation, handle.id) == "cancelled"
