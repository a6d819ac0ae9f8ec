"""A worker process for the benches on PostgreSQL: `python -m bench.pgworker URL CONCURRENCY`.

It writes "ready" to stdout once it takes work, and "cpu SECONDS" when it ends by SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from bench.workflows import Plan, steps
from polos import PolosClient, Worker, WorkflowContext, workflow

__all__ = ["steps"]


def moment() -> int:
    """Return nanoseconds of the clock that all processes of the machine share."""
    return time.monotonic_ns()


@workflow(id="bench_moment")
async def running_at(ctx: WorkflowContext) -> int:
    """Return when the first body runs."""
    return await ctx.step.run("moment", moment)


@workflow(id="bench_held")
async def held(ctx: WorkflowContext, path: str) -> None:
    """Write down when a body begins, then hang."""

    async def body() -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode=0o644)
        os.write(file, f"{moment()}\n".encode())
        os.close(file)
        await asyncio.Event().wait()

    await ctx.step.run("held", body)


@workflow(id="bench_queued")
async def queued(ctx: WorkflowContext, plan: Plan) -> int:
    """Take steps, as `bench_steps` does, but in no process that starts them."""
    return await steps.func(ctx, plan)


async def main(url: str, concurrency: int) -> None:
    """Serve until SIGTERM."""
    client = PolosClient(url)
    await client.node()
    print("ready", flush=True)
    await Worker(client=client, max_concurrent_workflows=concurrency).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    print(f"cpu {time.process_time()}", flush=True)
