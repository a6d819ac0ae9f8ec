"""State of an older version, as executions meet it: replayed, claimed, blocked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from polos import Workflow, WorkflowContext, WorkflowState, migrate, workflow
from polos.workflow import registry
from tests.sim.helpers import by_hand, is_blocked, is_ended, is_waiting, pass_time, until_shown

Code = Callable[[WorkflowContext], Awaitable[Any]]


class Old(WorkflowState):
    items: list[str] = []
    total: int = 0


class New(WorkflowState, version=2):
    lines: list[str] = []
    total: int = 0

    @migrate(from_version=1)
    @staticmethod
    def _(data: dict[str, Any]) -> dict[str, Any]:
        data["lines"] = data.pop("items")
        return data


def define(code: Code, schema: type[WorkflowState]) -> Workflow[Any]:
    registry.default = registry.Registry()

    @workflow(id="code", state_schema=schema)
    async def defined(ctx: WorkflowContext) -> Any:
        return await code(ctx)

    return defined


def entries(state: Any) -> list[str]:
    return state.items if isinstance(state, Old) else state.lines


async def start_old(code: Code, world: dict[str, Any]) -> str:
    old = define(code, Old)
    async with by_hand(**world) as simulation:
        handle = await old.invoke(simulation.client)
        await until_shown(simulation, handle.id, is_waiting)
        return handle.id


async def bought(ctx: WorkflowContext) -> Any:
    entries(ctx.state).append("a")
    ctx.state.total += 3
    await ctx.step.uuid("first")
    entries(ctx.state).append("b")
    await ctx.step.wait_for("nap", hours=1)
    ctx.state.total += 4
    await ctx.step.uuid("last")
    return [*entries(ctx.state), ctx.state.total]


async def test_state_is_migrated_where_the_execution_goes_on(world: dict[str, Any]) -> None:
    id_ = await start_old(bought, world)
    define(bought, New)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 3700, step=100)
        shown = await until_shown(simulation, id_, is_ended)
        assert shown["result"] == ["a", "b", 7]
        assert shown["state"] == {"lines": ["a", "b"], "total": 7}
        record = await simulation.node.engine.require(id_)
        recorded = await simulation.store.states(record.root_id, record.id)
    versions = [entry.schema_version for entry in recorded]
    assert versions == sorted(versions, key=lambda each: each or 1)
    assert versions[0] is None
    first = next(entry for entry in recorded if entry.schema_version == 2)
    assert first.body.startswith("{")  # a delta would be against another schema


async def test_changes_of_concurrent_steps_are_migrated_too(world: dict[str, Any]) -> None:
    async def code(ctx: WorkflowContext) -> Any:
        async def add(name: str) -> None:
            entries(ctx.state).append(name)
            ctx.state.total += 1

        await asyncio.gather(
            ctx.step.run("x", add, "x"), ctx.step.run("y", add, "y"), ctx.step.run("z", add, "z")
        )
        await ctx.step.wait_for("nap", hours=1)
        return [sorted(entries(ctx.state)), ctx.state.total]

    id_ = await start_old(code, world)
    define(code, New)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 3700, step=100)
        shown = await until_shown(simulation, id_, is_ended)
        assert shown["result"] == [["x", "y", "z"], 3]


async def test_a_downgrade_parks_the_execution_and_the_newer_code_goes_on(
    world: dict[str, Any],
) -> None:
    new = define(bought, New)
    async with by_hand(**world) as simulation:
        handle = await new.invoke(simulation.client)
        await until_shown(simulation, handle.id, is_waiting)
    define(bought, Old)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 3700, step=100)
        shown = await until_shown(simulation, handle.id, is_blocked)
        assert "newer code wrote it" in shown["blocked_reason"]
        assert shown["state"] == {"lines": ["a", "b"], "total": 3}
    define(bought, New)
    async with by_hand(**world) as simulation:
        await simulation.client.retry_execution(handle.id)
        await pass_time(simulation, 10, step=1)
        shown = await until_shown(simulation, handle.id, is_ended)
        assert shown["result"] == ["a", "b", 7]


class Strict(WorkflowState):
    items: list[str] = []
    total: str = ""


async def test_a_state_that_no_longer_fits_parks_the_execution_and_keeps_its_bytes(
    world: dict[str, Any],
) -> None:
    id_ = await start_old(bought, world)
    define(bought, Strict)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 3700, step=100)
        shown = await until_shown(simulation, id_, is_blocked)
        assert "its state cannot be loaded" in shown["blocked_reason"]
        assert "total: Input should be a valid string, not 3" in shown["blocked_reason"]
        assert shown["state"] == {"items": ["a", "b"], "total": 3}


async def test_a_state_of_which_only_the_latest_no_longer_fits_parks_the_execution(
    world: dict[str, Any],
) -> None:
    class Small(WorkflowState):
        items: list[str] = []
        total: int = 0

        def model_post_init(self, context: Any) -> None:
            del context
            assert len(self.items) < 2, "at most one item"

    id_ = await start_old(bought, world)
    define(bought, Small)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 3700, step=100)
        shown = await until_shown(simulation, id_, is_blocked)
        assert "at most one item" in shown["blocked_reason"]
