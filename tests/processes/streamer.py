"""A process whose execution streams out, up to a chunk if one is named: `streamer.py URL CHUNK`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator

from polos import PolosClient, WorkflowContext, workflow

URL, LAST = sys.argv[1:3]
COUNT = 40


async def go_on(behind: object) -> None:
    """Return, unless this life is to be killed here."""
    if str(behind) == LAST:
        await asyncio.Event().wait()


async def numbers(first: int) -> AsyncIterator[int]:
    for n in range(first, first + COUNT):
        yield n
        await go_on(n)


def in_thread(first: int) -> Iterator[int]:
    yield from range(first, first + COUNT)


@workflow(id="streamer")
async def streamer(ctx: WorkflowContext) -> str:
    for n in range(5):
        ctx.emit(f"begin {n}")
        await go_on(f"begin {n}")
    await ctx.step.stream("async", numbers, 0)
    for n in range(5):
        ctx.emit(f"between {n}")
        await go_on(f"between {n}")
    await ctx.step.stream("thread", in_thread, 1000, collect=len)
    for n in range(5):
        await ctx.emit(f"end {n}")
    return "done"


async def main() -> None:
    async with PolosClient(URL) as client:
        handle = await streamer.invoke(client, idempotency_key="one")
        print("ready", handle.id, flush=True)
        print(await handle.result(), flush=True)


asyncio.run(main())
