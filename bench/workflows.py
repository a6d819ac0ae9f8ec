"""The workflows that are measured; bodies do next to nothing, so that the rest is Polos."""

from __future__ import annotations

import asyncio
import random

from pydantic import BaseModel

from polos import WorkflowContext, WorkflowState, workflow

NAP_MAX_SECONDS = 0.02


class Kilobyte(WorkflowState):
    """About 1 KB of JSON, of the kinds that state has; `touch` changes about 30 bytes of it."""

    done: int = 0
    last: str = ""
    failed: list[str] = [f"folder/of/things/file_{n:03}.txt" for n in range(14)]
    settings: dict[str, str] = {f"setting_{n}": f"value of it {n}" for n in range(14)}

    def touch(self, number: int) -> None:
        """Change what a step typically changes."""
        self.done += 1
        self.last = f"folder/file_{number:06}.txt"


class Plan(BaseModel):
    """How many steps an execution takes, and the seed of its naps."""

    steps: int
    seed: int = 0


async def give(number: int) -> int:
    """Be the body of a step."""
    return number


async def nap(seconds: float) -> float:
    """Be the body of a step that waits for the outside."""
    await asyncio.sleep(seconds)
    return seconds


def naps(plan: Plan) -> list[float]:
    """Return how long each step of an execution sleeps: 0 to 20 ms."""
    chance = random.Random(plan.seed)
    return [chance.uniform(0, NAP_MAX_SECONDS) for _ in range(plan.steps)]


@workflow(id="bench_steps")
async def steps(ctx: WorkflowContext, plan: Plan) -> int:
    """Take steps one after the other."""
    total = 0
    for number in range(plan.steps):
        total += await ctx.step.run(f"step_{number}", give, number)
    return total


@workflow(id="bench_state_steps", state_schema=Kilobyte)
async def state_steps(ctx: WorkflowContext, plan: Plan) -> int:
    """Take steps that each change a state of 1 KB."""
    total = 0
    for number in range(plan.steps):
        total += await ctx.step.run(f"step_{number}", give, number)
        ctx.state.touch(number)
    return total


@workflow(id="bench_naps")
async def nap_steps(ctx: WorkflowContext, plan: Plan) -> int:
    """Take steps that sleep."""
    for number, seconds in enumerate(naps(plan)):
        await ctx.step.run(f"step_{number}", nap, seconds)
    return plan.steps


@workflow(id="bench_state_naps", state_schema=Kilobyte)
async def state_nap_steps(ctx: WorkflowContext, plan: Plan) -> int:
    """Take steps that sleep, and change a state of 1 KB."""
    for number, seconds in enumerate(naps(plan)):
        await ctx.step.run(f"step_{number}", nap, seconds)
        ctx.state.touch(number)
    return plan.steps


def expected(plan: Plan) -> int:
    """Return what `steps` and `state_steps` return."""
    return sum(range(plan.steps))


def require(found: object, wanted: object) -> None:
    """Refuse a measurement whose workflow did not do its work."""
    if found != wanted:
        raise RuntimeError(f"the workflow returned {found!r}; expected {wanted!r}")
