"""A program that is killed behind many recorded steps, and the one that goes on from there.

`python -m bench.resumer die URL STEPS KIND` records STEPS steps and kills itself in the body of
the next one. `… resume …` is the same program started again: once that body runs it prints, as
JSON, nanoseconds of the system's monotonic clock, and ends without a word to the database.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

from polos import PolosClient, WorkflowContext, workflow

# Whatever is loaded or built later than this counts as Polos' own time.
IMPORTED_NS, IMPORTED_CPU_NS = time.monotonic_ns(), time.process_time_ns()

from bench.workflows import Kilobyte, give  # noqa: E402 - it makes models and workflows

MAX_HISTORY = 1_000_000
"""Longer than any journal that is measured."""


class Process:
    """What this process is here for, and what it saw."""

    mode, url, steps, kind = "", "", 0, ""
    entered_ns = 0
    bodies = 0


async def count(number: int) -> int:
    """Be the body of a step that must not run a second time."""
    Process.bodies += 1
    return await give(number)


async def last() -> None:
    """Be the body behind the recorded ones."""
    if Process.mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    reached_ns, reached_cpu_ns = time.monotonic_ns(), time.process_time_ns()
    report = {
        "imported_ns": IMPORTED_NS,
        "entered_ns": Process.entered_ns,
        "reached_ns": reached_ns,
        "cpu_ns": reached_cpu_ns - IMPORTED_CPU_NS,
        "bodies": Process.bodies,
    }
    sys.stdout.write(json.dumps(report))
    sys.stdout.flush()
    os._exit(0)


@workflow(id="bench_resume_plain", max_history=MAX_HISTORY)
async def plain(ctx: WorkflowContext, steps: int) -> None:
    """Take steps, then the last one."""
    Process.entered_ns = time.monotonic_ns()
    for number in range(steps):
        await ctx.step.run(f"step_{number}", count, number)
    await ctx.step.run("last", last)


@workflow(id="bench_resume_state", state_schema=Kilobyte, max_history=MAX_HISTORY)
async def state(ctx: WorkflowContext, steps: int) -> None:
    """Take steps that change a state of 1 KB, then the last one."""
    Process.entered_ns = time.monotonic_ns()
    for number in range(steps):
        await ctx.step.run(f"step_{number}", count, number)
        ctx.state.touch(number)
    await ctx.step.run("last", last)


async def main() -> None:
    """Start the execution, or only open the database: what is left in it goes on by itself."""
    async with PolosClient(Process.url) as client:
        if Process.mode == "die":
            await {"plain": plain, "state": state}[Process.kind](client, Process.steps)
        await asyncio.sleep(30)
        sys.exit("the execution did not go on within 30 seconds")


if __name__ == "__main__":
    _, Process.mode, Process.url, steps_text, Process.kind = sys.argv
    Process.steps = int(steps_text)
    asyncio.run(main())
