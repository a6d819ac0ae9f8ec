"""A process whose executions are watched: `watched.py MODE URL NAME`."""

import asyncio
import sys

from polos import Polos, PolosClient, WorkflowContext, WorkflowState, workflow

MODE, URL, NAME = sys.argv[1:4]
STEPS = 60


class Total(WorkflowState):
    n: int = 0
    notes: list[str] = []


async def pause() -> None:
    await asyncio.sleep(0.002)


@workflow(id="watched", state_schema=Total)
async def watched(ctx: WorkflowContext) -> int:
    async def branch(name: str) -> None:
        for n in range(STEPS // 2):
            ctx.state.n += 1
            await ctx.step.run(f"{name}{n}", pause)

    await asyncio.gather(branch("a"), branch("b"))
    return ctx.state.n


async def start() -> None:
    """Start executions, say their ids, and run them for ever."""
    async with PolosClient(URL) as client:
        handles = [await watched.invoke(client) for _ in range(3)]
        print("ready", flush=True)
        print(*[handle.id for handle in handles], flush=True)
        await asyncio.Event().wait()


async def work() -> None:
    """Take over what others left."""
    async with Polos(url=URL):
        print("ready", flush=True)
        await asyncio.Event().wait()


asyncio.run({"start": start, "work": work}[MODE]())
