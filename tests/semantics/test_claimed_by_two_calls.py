"""A parked coroutine that two calls claim at once goes on, whichever hears first."""

import asyncio
from collections.abc import Sequence
from typing import Any

from polos import WorkflowContext, workflow
from tests.sim.helpers import by_hand, until


class Late:
    """A backend whose claims that found nothing are heard of only when the test says so."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.empty = 0
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def claim(self, keys: Any, parked: Any, limit: int) -> Sequence[Any]:
        found = await self._backend.claim(keys, parked, limit)
        if not found:
            self.empty += 1
            await self.go.wait()
        return found


async def test_one_that_hears_late_lets_it_be() -> None:
    began: list[int] = []

    @workflow(id="claims.twice")
    async def code(ctx: WorkflowContext) -> Any:
        began.append(1)
        return (await ctx.step.suspend("q"))["data"]

    async with by_hand() as simulation:
        runner: Any = simulation.node.runner
        handle = await code.invoke(simulation.client)
        await until(lambda: handle.id in runner._parked)
        attempt = runner._parked[handle.id]
        late = runner.backend = Late(runner.backend)
        number = attempt.number

        async def wake() -> None:
            runner._waking.add(handle.id)
            await runner._claim_parked()

        both = [asyncio.create_task(wake()) for _ in range(2)]
        await until(lambda: late.empty and attempt.parked and attempt.number > number)
        late.go.set()
        await asyncio.gather(*both)
        assert not attempt.sealed
        await handle.resume("q", {"n": 1})
        assert await handle.result() == {"n": 1}
        assert began == [1]
