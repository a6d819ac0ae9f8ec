"""Executions whose code changes under them: each goes one way, old or new, to its end.

The old code dies at every commit, then the new code dies at every commit, then the new code runs to
the end. Replay is strict all the time: whatever leaves the journal fails the execution.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from polos import WorkflowContext, workflow
from polos.store.sqlite.store import Crashed, MemoryDatabase
from polos.testing import ManualClock, Simulation
from polos.workflow import registry as registries
from polos.workflow.registry import Registry
from tests.sim.helpers import rows_of

ID = "changing"
Code = Callable[[WorkflowContext, Any], Any]
WHERE = ("before", "after")


async def noop() -> None:
    await asyncio.sleep(0)


async def sequential(ctx: WorkflowContext, patched: Any) -> bool:
    await ctx.step.run("a", noop)
    new = patched("change")
    await ctx.step.run("new" if new else "old", noop)
    await ctx.step.run("b", noop)
    assert patched("change") is new
    return new


async def waiting(ctx: WorkflowContext, patched: Any) -> bool:
    await ctx.step.uuid("id")
    new = patched("change")
    if new:
        await ctx.step.run("new", noop)
    else:
        await ctx.step.wait_for("old", hours=1)
    await ctx.step.wait_for("nap", hours=1)
    return new


async def in_a_branch(ctx: WorkflowContext, patched: Any) -> bool:
    async def changed() -> bool:
        await ctx.step.run("x", noop)
        new = patched("change")
        await ctx.step.run("new" if new else "old", noop)
        await ctx.step.run("y", noop)
        return new

    async def other(n: int) -> None:
        await ctx.step.run(f"p{n}", noop)
        await ctx.step.run(f"q{n}", noop)
        await ctx.step.run(f"r{n}", noop)

    new, *_ = await asyncio.gather(changed(), other(1), other(2))
    await ctx.step.run("end", noop)
    return new


async def in_every_branch(ctx: WorkflowContext, patched: Any) -> bool:
    async def branch(n: int) -> bool:
        await ctx.step.run(f"x{n}", noop)
        new = patched("change")
        await ctx.step.run(f"new{n}" if new else f"old{n}", noop)
        return new

    answers = await asyncio.gather(*(branch(n) for n in range(3)))
    assert len(set(answers)) == 1
    await ctx.step.run("end", noop)
    return answers[0]


SHAPES: dict[str, Code] = {
    each.__name__: each for each in (sequential, waiting, in_a_branch, in_every_branch)
}


def registered(code: Code, *, new: bool) -> Registry:
    """Return a registry with the workflow as it was before the change, or as it is after it."""
    before, registries.default = registries.default, Registry()
    try:

        @workflow(id=ID)
        async def changing(ctx: WorkflowContext) -> bool:
            return await code(ctx, ctx.patched if new else lambda _: False)

        return registries.default
    finally:
        registries.default = before


@dataclass
class Ran:
    """What one life left behind."""

    died: bool
    rows: list[dict[str, Any]]
    result: Any = None


async def live(
    database: MemoryDatabase, clock: ManualClock, registry: Registry, death: tuple[int, str] | None
) -> Ran:
    """Start the execution or go on with it; die at a commit, if there are so many."""
    dead = asyncio.Event()
    count = 0

    def gate(moment: str) -> None:
        nonlocal count
        count += moment == "begin"
        if (count, moment) == death:
            dead.set()
            raise Crashed

    async with Simulation(
        database=database, clock=clock, registry=registry, strict=True
    ) as simulation:
        found = await simulation.client.list_executions()
        simulation.on_transaction(gate)
        task = asyncio.ensure_future(end_of(simulation, found[0]["id"] if found else None))
        fatal = asyncio.ensure_future(dead.wait())
        await asyncio.wait({task, fatal}, return_when=asyncio.FIRST_COMPLETED)
        fatal.cancel()
        if dead.is_set():
            simulation.crash()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            rows = await rows_left(database)
            return Ran(True, rows)
        simulation.on_transaction(None)
        execution_id, result = await task
        return Ran(False, await rows_of(simulation, execution_id), result)


async def end_of(simulation: Simulation, execution_id: str | None) -> tuple[str, Any]:
    handle = simulation.client.get_handle(execution_id or "")
    if execution_id is None:
        handle = await simulation.client.invoke(ID)
    return handle.id, await handle.result()


async def rows_left(database: MemoryDatabase) -> list[dict[str, Any]]:
    found = database.connection.execute("SELECT kind, key, body FROM step ORDER BY seq")
    return [{"kind": kind, "key": key, "body": body} for kind, key, body in found]


def keys(rows: list[dict[str, Any]], prefix: str) -> set[str]:
    return {row["key"] for row in rows if row["kind"] != "patch" and row["key"].startswith(prefix)}


def check(before: list[dict[str, Any]], last: Ran, *, fresh: bool) -> None:
    """Compare an execution with what the old code had recorded of it."""
    assert last.result in (True, False)
    answers = [row["body"] for row in last.rows if row["kind"] == "patch"]
    assert answers == ["true" if last.result else "false"]
    assert bool(keys(last.rows, "new")) is last.result
    assert bool(keys(last.rows, "old")) is not last.result
    if keys(before, "old"):
        assert last.result is False
    if fresh:
        assert last.result is True


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_execution_goes_one_way_wherever_old_and_new_code_die(shape: str) -> None:
    old = registered(SHAPES[shape], new=False)
    new = registered(SHAPES[shape], new=True)
    results: set[bool] = set()
    for first in range(1, 100):
        reached = False
        for where in WHERE:
            for second in range(100):
                database, clock = MemoryDatabase(), ManualClock()
                before = await live(database, clock, old, (first, where))
                if not before.died:
                    break
                reached = True
                found = database.connection.execute("SELECT status FROM execution").fetchall()
                if not found or found[0][0] == "completed":
                    break  # there is nothing to change
                died = True
                for at in WHERE if second else ():
                    ran = await live(database, clock, new, (second, at))
                    died = died and ran.died
                last = await live(database, clock, new, None)
                check(before.rows, last, fresh=not before.rows)
                results.add(last.result)
                if not died:
                    break
        if not reached:
            break
    assert results == {True, False}


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_execution_that_the_new_code_started_goes_the_new_way(shape: str) -> None:
    new = registered(SHAPES[shape], new=True)
    for death in range(1, 100):
        database, clock = MemoryDatabase(), ManualClock()
        ran = await live(database, clock, new, (death, "after"))
        last = await live(database, clock, new, None)
        check([], last, fresh=True)
        if not ran.died:
            break
