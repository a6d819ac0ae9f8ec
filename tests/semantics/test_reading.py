"""State of others, read inside of workflows."""

from __future__ import annotations

from typing import Any

import pytest

from polos import StepExecutionError, WorkflowContext, WorkflowState, workflow
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import ManualClock
from polos.workflow import registry
from tests.sim.helpers import by_hand, is_ended, is_waiting, pass_time, until_shown

World = dict[str, Any]


class Work(WorkflowState):
    done: int = 0
    ratio: float = 0.0


@workflow(id="job", state_schema=Work)
async def job(ctx: WorkflowContext, days: int) -> int:
    ctx.state.done += 1
    ctx.state.ratio = float("inf")
    await ctx.step.wait_for("nap", days=days)
    ctx.state.done += 1
    return ctx.state.done


@workflow(id="reading.plain")
async def plain(ctx: WorkflowContext) -> None:
    await ctx.step.wait_for("nap", days=9)


async def watch(ctx: WorkflowContext) -> Any:
    one = await ctx.step.invoke("one", job, 1)
    two = await ctx.step.invoke("two", plain)
    await ctx.step.wait_for("look", hours=1)
    early = await ctx.children_state()
    await ctx.step.wait_for("pause", days=2)
    late = await ctx.children_state()
    every = await ctx.children_state("every", ended=True)
    return {
        "ids": [one.id, two.id],
        "early": early,
        "late": late,
        "ended": [each["status"] for each in every.values()],
        "first": await ctx.step.get_state("first", one),
        "by_id": await ctx.step.get_state("by_id", two.id),
    }


def define(*workflows: Any) -> None:

    for each in workflows:
        registry.default.register(each)


async def test_a_workflow_sees_what_its_children_are_at_and_a_replay_sees_the_same() -> None:
    world: World = {"database": MemoryDatabase(), "clock": ManualClock(auto=False)}
    watching = workflow(id="watch")(watch)
    define(job, plain)
    async with by_hand(**world) as simulation:
        handle = await watching.invoke(simulation.client)
        for _ in range(200):
            await pass_time(simulation, 300, step=300)
            steps = await simulation.client.get_steps(handle.id)
            if any(each["kind"] == "children_state" for each in steps):
                break
    async with by_hand(**world) as simulation:
        for _ in range(8):
            # Behind a jump the worker first finds out whether it was declared dead.
            await pass_time(simulation, 40_000, step=40_000)
            await pass_time(simulation, 20)
        shown = await until_shown(simulation, handle.id, is_ended)
        result = shown["result"]
    one, two = result["ids"]
    assert list(result["early"]) == [one, two]
    assert result["early"][one]["state"]["done"] == 1
    assert result["early"][one]["status"] == "waiting"
    assert result["early"][two] == {
        "workflow_id": "reading.plain",
        "step_key": "two",
        "status": "waiting",
        "state": None,
    }
    assert list(result["late"]) == [two]
    assert result["ended"] == ["completed", "waiting"]
    assert result["first"]["done"] == 2
    assert result["by_id"] is None


async def test_a_plain_function_reads_as_well(world: World) -> None:
    @workflow(id="sync")
    def sync(ctx: WorkflowContext, other: str) -> Any:
        return [ctx.children_state(), ctx.step.get_state("other", other)]

    define(job)
    async with by_hand(**world) as simulation:
        other = await job.invoke(simulation.client, 1)
        await until_shown(simulation, other.id, is_waiting)
        handle = await sync.invoke(simulation.client, other.id)
        shown = await until_shown(simulation, handle.id, is_ended)
    assert shown["result"][0] == {}
    assert shown["result"][1]["done"] == 1


async def test_what_is_nobodys_state_is_refused(world: World) -> None:
    @workflow(id="wrong")
    async def wrong(ctx: WorkflowContext) -> list[str]:
        found: list[str] = []
        for n, target in enumerate((None, 7, ("job",), ("job", 1.5))):
            with pytest.raises(Exception, match=r"expected an execution's id|a state key") as error:
                await ctx.step.get_state(f"wrong_{n}", target)
            found.append(type(error.value).__name__)
        with pytest.raises(StepExecutionError, match="nobody"):
            await ctx.step.get_state("unknown", "nobody")
        assert await ctx.step.get_state("no_key", ("job", "x")) is None
        return found

    async with by_hand(**world) as simulation:
        handle = await wrong.invoke(simulation.client)
        shown = await until_shown(simulation, handle.id, is_ended)
        assert shown["result"] == ["UsageError"] * 4
