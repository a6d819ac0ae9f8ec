"""A workflow whose state is watched, also as a process: `python -m bench.watched URL COUNT`."""

from __future__ import annotations

import asyncio
import sys
import time

from polos import PolosClient, WorkflowContext, WorkflowState, workflow


class Mark(WorkflowState):
    """When it was set, by the system's monotonic clock, in nanoseconds."""

    at: int = 0


async def rest(number: int) -> None:
    """Let time pass, out of step with who looks now and then."""
    await asyncio.sleep(0.005 + number % 7 * 0.004)


async def nothing() -> None:
    """A step that only carries the state."""


@workflow(id="bench_watched", state_schema=Mark)
async def watched(ctx: WorkflowContext, count: int) -> int:
    """Change the state so many times, with rests between."""
    for number in range(count):
        await ctx.step.run(f"rest{number}", rest, number)
        ctx.state.at = time.monotonic_ns()
        await ctx.step.run(f"mark{number}", nothing)
    return count


async def main(url: str, count: int) -> None:
    """Run one, and say its id at once."""
    async with PolosClient(url) as client:
        handle = await watched.invoke(client, count)
        print(handle.id, flush=True)
        await handle.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
