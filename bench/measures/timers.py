"""Executions that sleep: what one costs while it does, and how punctually it goes on."""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import apsw

from bench.raw import AGAINST_TIME, RawLog
from bench.session import Session, open_client, p99
from polos import BatchWorkflowInput, PolosClient, WorkflowContext, workflow

CHUNK = 500
PER_SECOND = 1000
"""How many timers come due each second."""
PATIENCE_SECONDS = 300
COUNT = "SELECT count(*) FROM execution WHERE workflow_id = 'bench_sleeper' AND status = ?"


class Fired:
    """When each sleeper was to go on, and how much later it did, in seconds."""

    seen: list[tuple[float, float]] = []


@workflow(id="bench_sleeper")
async def sleeper(ctx: WorkflowContext, due: float) -> None:
    """Sleep until a moment."""
    await ctx.step.wait_until("nap", datetime.fromtimestamp(due, UTC))
    Fired.seen.append((due, time.time() - due))


class Observer:
    """Looks at the database from outside."""

    def __init__(self, folder: Path, count: str = COUNT) -> None:
        self._count = count
        path = str(folder / "polos.db")
        self._connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)

    def count(self, status: str) -> int:
        """Return how many executions have a status."""
        return int(next(iter(self._connection.execute(self._count, (status,))))[0])

    def size(self) -> int:
        """Return the bytes of the database, without the write-ahead log."""
        pages = int(next(iter(self._connection.execute("PRAGMA page_count")))[0])
        return pages * int(next(iter(self._connection.execute("PRAGMA page_size")))[0])

    def close(self) -> None:
        """Close it."""
        self._connection.close()


def resident_bytes() -> int:
    """Return how much memory this process has."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


async def sleep_until(moment: float) -> None:
    """Wait until a moment of the clock on the wall."""
    await asyncio.sleep(max(moment - time.time(), 0))


async def start_sleepers(client: PolosClient, dues: list[float]) -> None:
    """Start one execution for each moment."""
    for first in range(0, len(dues), CHUNK):
        inputs = [BatchWorkflowInput(id=sleeper.id, payload=d) for d in dues[first : first + CHUNK]]
        await client.batch_invoke(inputs)


async def until_asleep(observer: Observer, count: int, limit: float) -> None:
    """Wait until all of them sleep; fail at the moment when the first comes due."""
    while (asleep := observer.count("waiting")) < count:
        if time.time() > limit:
            raise RuntimeError(f"only {asleep:,} of {count:,} were asleep when the first came due")
        await asyncio.sleep(0.2)


async def until_fired(count: int, last: float) -> None:
    """Wait until all have gone on."""
    while len(Fired.seen) < count:
        if time.time() > last + PATIENCE_SECONDS:
            raise RuntimeError(f"only {len(Fired.seen):,} of {count:,} timers fired")
        await asyncio.sleep(0.2)


class Sizes:
    """Bytes per sleeper, and sleepers that went to sleep per second."""

    memory = stored = rate = 0.0


async def sleep_and_fire(session: Session, folder: Path, count: int) -> Sizes:
    """Let `count` executions sleep at the same time, and then go on one after the other."""
    sizes = Sizes()
    async with open_client(folder) as client:
        observer = Observer(folder)
        try:
            # How long it takes to put them all to sleep is not known before it was tried.
            trial = session.size(2000, 50)
            begun = time.time()
            await start_sleepers(client, [begun + 3600] * trial)
            await until_asleep(observer, trial, begun + 600)
            per_sleeper = (time.time() - begun) / trial
            memory, stored = resident_bytes(), observer.size()
            begun = time.time()
            first = begun + 2 * per_sleeper * count + session.size(20, 1)
            dues = [first + number / PER_SECOND for number in range(count)]
            await start_sleepers(client, dues)
            await until_asleep(observer, count + trial, first)
            sizes.rate = count / (time.time() - begun)
            sizes.memory = (resident_bytes() - memory) / count
            sizes.stored = (observer.size() - stored) / count
            await sleep_until(dues[-1])
            await until_fired(count, dues[-1])
        finally:
            observer.close()
    return sizes


def measure(session: Session) -> None:
    """Measure once: 100,000 timers are sample enough. Lag is told for equal parts in time."""
    count = session.size(100_000, 200)
    Fired.seen = []
    with session.fresh() as folder:
        with RawLog(folder) as raw:
            rows = session.size(500, 10)
            limit = raw.seconds(rows) / rows * 1e3
        sizes = session.run(sleep_and_fire(session, folder, count))
    if len(Fired.seen) != count:
        raise RuntimeError(f"{len(Fired.seen):,} timers fired; expected {count:,}")
    session.report("asleep", "executions/s", [(sizes.rate, 1000 / limit)], "single-row commits/s")
    session.report("memory", "bytes/timer", [(sizes.memory, None)])
    session.report("stored", "bytes/timer", [(sizes.stored, None)])
    lags = [lag * 1e3 for _, lag in sorted(Fired.seen)]
    part = len(lags) // session.runs
    parts = [lags[n * part : (n + 1) * part] for n in range(session.runs)]
    session.report("lag_p50", "ms", [(statistics.median(p), limit) for p in parts], AGAINST_TIME)
    session.report("lag_p99", "ms", [(p99(p), limit) for p in parts], AGAINST_TIME)
