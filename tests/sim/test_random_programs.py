"""Workflows made at random: steps, waits, children and failures, nested in gathers and groups."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from polos import StepExecutionError, WorkflowContext, workflow
from polos.testing import SweepReport, crash_sweep
from tests.sim.programs import Bodies, Program, Tally, sorted_notes

Op = tuple[Any, ...]


def make(seed: int) -> list[Op]:
    """Return a program: a list of operations, some of which hold lists of operations."""
    chance = random.Random(seed)
    keys = iter(range(1000))

    def one(depth: int) -> Op:
        kinds = ["step", "step", "change", "wait", "fail", "value", "retry", "turns", "child"]
        if depth < 2:
            kinds += ["gather", "gather", "group"]
        kind = chance.choice(kinds)
        key = f"{kind}{next(keys)}"
        if kind in ("gather", "group"):
            branches = [several(depth + 1) for _ in range(chance.randint(2, 3))]
            return kind, key, branches
        return kind, key, chance.randint(0, 12)

    def several(depth: int) -> list[Op]:
        return [one(depth) for _ in range(chance.randint(1, 3))]

    return [one(0) for _ in range(4)]


def build(seed: int) -> Program:
    """Define the workflow of a program."""
    bodies = Bodies()
    ops = make(seed)

    @workflow(id="leaf", state_schema=Tally)
    async def leaf(ctx: WorkflowContext, key: str) -> int:
        await ctx.step.run(f"{key} leaf", bodies.changing(ctx, f"{key} leaf"))
        return ctx.state.count

    async def run(ctx: WorkflowContext, op: Op) -> None:
        kind, key, rest = op
        if kind == "gather":
            await asyncio.gather(*(run_all(ctx, branch) for branch in rest))
        elif kind == "group":
            async with asyncio.TaskGroup() as group:
                for branch in rest:
                    group.create_task(run_all(ctx, branch))
        elif kind == "step":
            await ctx.step.run(key, bodies.changing(ctx, key, turns=rest))
        elif kind == "change":
            ctx.state.count += rest
            ctx.state.notes.append(key)
        elif kind == "wait":
            await ctx.step.wait_for(key, seconds=1 + rest)
        elif kind == "turns":
            for _ in range(rest):
                await asyncio.sleep(0)
        elif kind == "value":
            await (ctx.step.now, ctx.step.uuid, ctx.step.random)[rest % 3](key)
        elif kind == "child":
            got = await ctx.step.invoke_and_wait(key, leaf, key)
            ctx.state.count += got  # `+= await` would read the counter before it waits
        elif kind == "retry":
            await ctx.step.run(key, bodies.failing(key, 1), base_delay=0.1 if rest % 2 else 9)
        else:
            try:
                await ctx.step.run(key, bodies.failing(key, 1000), max_retries=0)
            except StepExecutionError as error:
                ctx.state.notes.append(str(error))
                ctx.state.count += 1

    async def run_all(ctx: WorkflowContext, ops: list[Op]) -> None:
        for op in ops:
            await run(ctx, op)

    @workflow(id="random", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        await run_all(ctx, ops)
        return ctx.state.count

    return Program(code, bodies.effects, normalize=sorted_notes)


async def sweep(seed: int) -> SweepReport:
    """Sweep the program of a seed."""
    program = build(seed)
    return await crash_sweep(program.start, effects=program.effects, normalize=program.normalize)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_a_death_at_any_commit_of_a_random_program_changes_nothing(seed: int) -> None:
    assert (await sweep(seed)).differences == []
