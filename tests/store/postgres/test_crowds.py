"""Many parents that park and are woken while commits and claims overlap: none is forgotten."""

import asyncio
import random

import pytest

from polos import PolosClient, WorkflowContext, workflow
from polos.workflow import registry
from tests.postgres import fresh_url

PARENTS = 300


@pytest.mark.slow
async def test_no_parent_is_forgotten_between_parking_and_waking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())
    chance = random.Random(1)

    @workflow(id="crowds.child")
    async def child(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.run("nap", asyncio.sleep, chance.uniform(0, 0.08))
        return n

    @workflow(id="crowds.parent")
    async def parent(ctx: WorkflowContext) -> list[int]:
        await ctx.step.run("first", asyncio.sleep, 0.01)
        found = [ctx.step.invoke_and_wait(f"c{n}", child, n) for n in range(4)]
        return list(await asyncio.gather(*found))

    async with PolosClient(fresh_url()) as client:
        async with asyncio.timeout(60):

            async def later(n: int) -> list[int]:
                await asyncio.sleep(n * 0.01)
                return await parent(client)

            results = await asyncio.gather(*(later(n) for n in range(PARENTS)))
        assert results == [[0, 1, 2, 3]] * PARENTS
