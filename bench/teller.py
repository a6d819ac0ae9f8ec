"""A process whose execution tells something for each line it reads: `python -m bench.teller URL`.

What it tells says when, by the system's monotonic clock, its step began.
"""

from __future__ import annotations

import asyncio
import sys
import time

from polos import Polos, WorkflowContext, workflow

TELLER = "bench_teller"


async def line() -> bool:
    """Read a line of standard input; False at its end."""
    return bool(await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline))


@workflow(id=TELLER)
async def teller(ctx: WorkflowContext) -> None:
    """Publish on the topic of its own tree for each line of standard input."""
    while await ctx.step.run("line", line):
        await ctx.step.publish_workflow_event("tell", {"at": time.monotonic_ns()}, "told")


async def main(url: str) -> None:
    """Run the execution, and say which it is."""
    async with Polos(url=url) as polos:
        handle = await teller.invoke(polos)
        print(handle.id, flush=True)
        await handle.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
