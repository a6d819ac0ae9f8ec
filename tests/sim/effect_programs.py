"""Programs of hooks, sagas, guarded effects and long histories, to be crashed like the others."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

from polos import (
    Done,
    HookContext,
    HookResult,
    NotDone,
    StepExecutionError,
    WorkflowContext,
    events,
    workflow,
)
from polos.testing import Outcome
from tests.sim.programs import Bodies, Program, Tally, sorted_notes


def modifying_hooks() -> Program:
    """Hooks that change the payload, the output and the state."""
    bodies = Bodies()

    async def double(ctx: WorkflowContext, told: HookContext) -> HookResult:
        bodies.effects.append("on_start.double.0")
        ctx.state.count += 1
        return HookResult.continue_with(modified_payload={"n": told.current_payload["n"] * 2})

    def sign(ctx: WorkflowContext, told: HookContext) -> HookResult:
        bodies.effects.append("on_end.sign.0")
        ctx.state.notes.append(f"{told.current_payload} {told.current_output}")
        return HookResult.continue_with(modified_output={"signed": True})

    @workflow(id="modifying_hooks", state_schema=Tally, on_start=double, on_end=sign)
    async def code(ctx: WorkflowContext, payload: dict[str, int]) -> dict[str, int]:
        await ctx.step.run("s", bodies.changing(ctx, "s"))
        return payload

    return Program(code, bodies.effects, {"n": 2, "m": 1})


def refusing_hook() -> Program:
    """A hook that fails the execution."""
    bodies = Bodies()

    def refuse(ctx: WorkflowContext, told: HookContext) -> HookResult:
        bodies.effects.append("on_end.refuse.0")
        return HookResult.fail("not like this")

    @workflow(id="refusing_hook", on_end=refuse)
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("s", bodies.plain("s"))

    return Program(code, bodies.effects)


def saga() -> Program:
    """Steps in sequence and beside each other that are undone when a later one fails."""
    bodies = Bodies()

    @workflow(id="saga", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        def undo(key: str) -> Callable[[], Any]:
            return bodies.changing(ctx, f"compensate.{key}")

        async def step(key: str, turns: int = 0) -> None:
            await ctx.step.run(
                key, bodies.changing(ctx, key, turns=turns), compensate=undo(key), base_delay=8
            )

        await step("a")
        await asyncio.gather(step("x", 2), step("y", 1), step("z"))
        await ctx.step.run("plain", bodies.changing(ctx, "plain"))
        await step("b")
        await ctx.step.run("broken", bodies.failing("broken", 99), max_retries=0)

    return Program(code, bodies.effects, normalize=sorted_notes)


def saga_that_cannot() -> Program:
    """Undoing that fails after pauses; beside a step that was running."""
    bodies = Bodies()

    @workflow(id="saga_that_cannot")
    async def code(ctx: WorkflowContext) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        for key in ("a", "b", "c"):
            place = f"compensate.{key}"
            undo = bodies.failing(place, 99) if key == "b" else bodies.plain(place)
            await ctx.step.run(
                key,
                bodies.plain(key),
                compensate=undo,
                max_retries=1,
                base_delay=8,
            )
        await asyncio.gather(
            ctx.step.run("running", hang, compensate=bodies.plain("compensate.running")),
            ctx.step.run("broken", bodies.failing("broken", 99), max_retries=0),
        )

    return Program(code, bodies.effects, normalize=without_running)


def without_running(outcome: Outcome) -> None:
    """Behind a death the beginning of a step that can be undone is recorded, before it none is."""
    outcome.steps.pop("running", None)


def cancelled_saga() -> Program:
    """A cancellation that cleans up, then undoes."""
    bodies = Bodies()
    program: Program

    @workflow(id="cancelled_saga", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        async def cancelling() -> None:
            await program.simulations[0].client.cancel_execution(ctx.execution_id)
            await asyncio.Event().wait()

        for key in ("a", "b"):
            undo = bodies.changing(ctx, f"compensate.{key}")
            await ctx.step.run(key, bodies.changing(ctx, key), compensate=undo)
        try:
            await ctx.step.run("cancelling", cancelling)
        finally:
            await ctx.step.run("clean", bodies.changing(ctx, "clean"))

    program = Program(code, bodies.effects)
    return program


def reconciled() -> Program:
    """Effects that are asked about before they are tried again: they never double."""
    bodies = Bodies()

    @workflow(id="reconciled", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[str]:
        async def charge(key: str, turns: int = 0) -> str:
            await bodies.plain(key, turns=turns)()
            return key

        def check(key: str) -> Callable[[], Done | NotDone]:
            return lambda: Done(key) if key in bodies.effects else NotDone()

        async def step(key: str, turns: int = 0) -> str:
            ctx.state.count += 1
            return await ctx.step.run(key, charge, key, turns, reconcile=check(key))

        found = [await step("once a")]
        found += await asyncio.gather(step("once x", 3), step("once y", 1))
        await ctx.step.run("plain", bodies.plain("plain"))
        return [*found, await step("once b")]

    return Program(code, bodies.effects, normalize=sorted_notes)


class Ledger:
    """A table of the program's own; `add` writes a line and returns how often it is there."""

    def __init__(self) -> None:
        self.name = f"ledger_{os.getpid()}_{next(_numbers)}"

    async def add(self, connection: Any, execution_id: str, key: str) -> int:
        """Write on either database: on SQLite nothing is awaited."""
        table = f"CREATE TABLE IF NOT EXISTS {self.name} (id text, key text)"
        line = f"INSERT INTO {self.name} VALUES ('{execution_id}', '{key}')"
        count = f"SELECT count(*) FROM {self.name} WHERE id = '{execution_id}' AND key = '{key}'"
        try:
            fetch = connection.fetchval
        except AttributeError:
            connection.execute(table)
            connection.execute(line)
            return next(connection.execute(count))[0]
        await connection.execute(table)
        await connection.execute(line)
        return await fetch(count)


_numbers = itertools.count()


def transacted() -> Program:
    """Transactions in sequence, beside each other and beside steps; some fail."""
    bodies = Bodies()
    ledger = Ledger()

    @workflow(id="transacted", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[Any]:
        async def add(connection: Any, key: str) -> int:
            ctx.state.count += 1
            ctx.state.notes.append(key)
            return await ledger.add(connection, ctx.execution_id, key)

        async def spoil(connection: Any) -> None:
            await add(connection, "spoilt")
            raise ValueError("spoilt")

        found: list[Any] = [await ctx.step.transaction("a", add, "a")]
        ctx.state.count += 10
        found += await asyncio.gather(
            ctx.step.transaction("x", add, "x"),
            ctx.step.run("s", bodies.changing(ctx, "s", turns=3)),
            ctx.step.transaction("y", add, "y"),
        )
        try:
            await ctx.step.transaction("spoilt", spoil)
        except StepExecutionError as error:
            found.append(str(error))
        await ctx.step.uuid("u")
        found.append(await ctx.step.transaction("spoilt again", add, "spoilt"))
        await ctx.step.wait_for("nap", hours=1)
        found.append(await ctx.step.transaction("b", add, "b"))
        assert found == [1, 1, "s", 1, found[4], 1, 1]
        return found

    return Program(code, bodies.effects, normalize=sorted_notes)


def renewed(first: int = 0, last: int = 2) -> Program:
    """Runs that follow each other, with state, steps, a wait and children of each.

    The last one reads what all of them told.
    """
    bodies = Bodies()

    @workflow(id="renewed_child")
    async def child(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.run(f"child {n}", bodies.plain(f"child {n}"))
        return n

    @workflow(id="renewed", state_schema=Tally)
    async def code(ctx: WorkflowContext, n: int) -> list[Any]:
        ctx.state.count += 1
        await ctx.step.run(f"a{n}", bodies.changing(ctx, f"a{n}"))
        await ctx.step.invoke_and_wait("child", child, n)
        await ctx.step.publish_workflow_event("say", {"n": n}, event_type="said")
        await ctx.step.wait_for("nap", hours=1)
        ctx.state.notes.append(f"end of {n}")
        if n < last:
            state = {"count": 100} if n == 1 else None
            ctx.continue_as_new(n + 1, state=state)
        await ctx.step.run("last", bodies.changing(ctx, "last"))

        async def told() -> list[Any]:
            bodies.effects.append("told")
            client = program.simulations[0].client
            found = await events.read(client, f"workflow/renewed/{ctx.execution_id}")
            assert [e.sequence_id for e in found] == list(range(1, len(found) + 1))
            # Of one moment, where the clock stands still, the order is any.
            return sorted(f"{e.event_type} {e.data | {'_metadata': None}}" for e in found)

        return [n, ctx.generation, ctx.state.count, await ctx.step.run("told", told)]

    program = Program(code, bodies.effects, first)
    return program


PROGRAMS: dict[str, Callable[[], Program]] = {
    make.__name__: make
    for make in (
        modifying_hooks,
        refusing_hook,
        saga,
        saga_that_cannot,
        cancelled_saga,
        reconciled,
        transacted,
        renewed,
    )
}

TO_DIE_TWICE: dict[str, Callable[[], Program]] = {
    name: make for name, make in PROGRAMS.items() if make is not renewed
} | {
    # Pairs of deaths grow with the square of the commits: each way to go on is swept by itself.
    "renewed, state goes on": functools.partial(renewed, 0, 1),
    "renewed, state replaced": functools.partial(renewed, 1, 2),
}
