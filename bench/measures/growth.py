"""What a step costs late in a long execution, and in a file that holds a million executions."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.loader import load
from bench.raw import RawLog
from bench.report import Pair
from bench.session import Session, open_client, stopwatch
from bench.workflows import Kilobyte, Plan, expected, give, require, steps
from polos import PolosClient, Workflow, WorkflowContext, workflow

PROBE_EVERY = 50
PROBE_ROWS = 10


class Window:
    """The cost of some steps of one execution, beside raw commits made in between.

    Steps and raw commits are taken in turns, so that a disk that gets slower or faster while the
    execution runs does not look like a cost that grows.
    """

    def __init__(self, raw: RawLog) -> None:
        self._raw = raw
        self._raw_seconds = self._seconds = self._cpu_seconds = 0.0
        self._rows = self._steps = 0
        self._begun = self._cpu_begun = 0.0

    def resume(self) -> None:
        """Go on measuring steps."""
        self._cpu_begun = time.process_time()
        self._begun = time.perf_counter()

    def pause(self, taken: int) -> None:
        """Stop after `taken` steps, and make some raw commits."""
        self._seconds += time.perf_counter() - self._begun
        self._cpu_seconds += time.process_time() - self._cpu_begun
        self._steps += taken
        self._raw_seconds += self._raw.seconds(PROBE_ROWS)
        self._rows += PROBE_ROWS

    @property
    def in_commits(self) -> float:
        """How many raw commits a step is worth."""
        return self._seconds / self._steps / (self._raw_seconds / self._rows)

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of the processor per step, in all threads."""
        return self._cpu_seconds / self._steps * 1e3


class Current:
    """What the running execution measures: its first and its last steps."""

    early: Window
    late: Window
    width = 1000


async def take(ctx: WorkflowContext, plan: Plan) -> int:
    """Take steps and measure the first and the last `Current.width` of them."""
    total = 0
    for first in range(0, plan.steps, PROBE_EVERY):
        window = None
        if first < Current.width:
            window = Current.early
        elif first >= plan.steps - Current.width:
            window = Current.late
        if window is not None:
            window.resume()
        for number in range(first, first + PROBE_EVERY):
            total += await ctx.step.run(f"step_{number}", give, number)
            if ctx.state is not None:
                ctx.state.touch(number)
        if window is not None:
            window.pause(PROBE_EVERY)
    return total


@workflow(id="bench_growth")
async def growing(ctx: WorkflowContext, plan: Plan) -> int:
    """Take many steps."""
    return await take(ctx, plan)


@workflow(id="bench_growth_state", state_schema=Kilobyte)
async def growing_state(ctx: WorkflowContext, plan: Plan) -> int:
    """Take many steps that change a state of 1 KB."""
    return await take(ctx, plan)


def measure(session: Session) -> None:
    """Measure step 10,000 of one execution, then a step beside 1,000,000 others."""
    measure_long(session, "step_10000", growing)
    measure_long(session, "step_10000_state", growing_state)
    with session.fresh() as folder:
        measure_full(session, folder)


def measure_long(session: Session, name: str, work: Workflow[int]) -> None:
    """Measure the last thousand of 10,000 steps against the first thousand."""
    plan = Plan(steps=session.size(10_000, 200))
    Current.width = session.size(1000, 50)
    cpu: list[Pair] = []

    async def once(client: PolosClient, raw: RawLog) -> Pair:
        # Else the early steps would append to the write-ahead log and the late ones overwrite it.
        raw.come_round()
        await steps(client, Plan(steps=session.size(4500, 5)))
        Current.early, Current.late = Window(raw), Window(raw)
        require(await work(client, plan), expected(plan))
        cpu.append((Current.late.cpu_ms, Current.early.cpu_ms))
        return Current.late.in_commits, Current.early.in_commits

    runs = session.pairs(once)
    session.report(name, "raw commits/step", runs, "its first 1,000 steps")
    session.report(f"{name}_cpu", "CPU ms/step", cpu, "its first 1,000 steps")


def measure_full(session: Session, folder: Path) -> None:
    """Measure in a file with a million finished executions against an empty one, in turns."""
    load(folder / "polos.db", session.size(1_000_000, 2000), steps.id)
    plan = Plan(steps=session.size(1000, 20))
    crowd = [Plan(steps=10) for _ in range(session.size(100, 5))]
    at_once: list[Pair] = []
    one: list[Pair] = []

    async def took(place: Path) -> tuple[float, float]:
        async with open_client(place) as client:
            await steps(client, Plan(steps=5))
            with stopwatch() as alone:
                require(await steps(client, plan), expected(plan))
            with stopwatch() as together:
                await asyncio.gather(*(steps(client, each) for each in crowd))
        taken = sum(each.steps for each in crowd)
        return alone.seconds / plan.steps * 1e3, together.seconds / taken * 1e3

    for _ in range(session.runs):
        with session.fresh() as empty:
            small = session.run(took(empty))
        full = session.run(took(folder))
        one.append((full[0], small[0]))
        at_once.append((full[1], small[1]))
    session.report("million", "ms/step", one, "an empty file")
    session.report("million_100x10", "ms/step", at_once, "an empty file")
