"""Removing old executions from a file that holds a million: finding them, and each transaction."""

from __future__ import annotations

import time

from bench.loader import load
from bench.report import Pair
from bench.session import Session, open_client, stopwatch, store_of

PROBES = 200
TREES = 100


def measure(session: Session) -> None:
    """Measure what a round costs that finds nothing, and one that removes a hundred trees."""
    idle: list[Pair] = []
    removed: list[Pair] = []
    longest: list[Pair] = []

    async def once(count: int) -> None:
        with session.fresh() as folder:
            load(folder / "polos.db", count, "bench_old")
            async with open_client(folder) as client:
                store = await store_of(client)
                now = time.time_ns() // 1000
                with stopwatch() as took:
                    for _ in range(PROBES):
                        await store.due("bench_old", 0, limit=TREES)
                idle.append((took.cpu_seconds / PROBES * 1e6, None))
                slowest = spent = 0.0
                for _ in range(session.size(100, 2)):
                    with stopwatch() as took:
                        due = await store.due("bench_old", now, limit=TREES)
                        done = await store.prune([root for _, root in due], now)
                    if done.left or not done.trees:
                        raise RuntimeError(f"{done} instead of {TREES} trees")
                    spent += took.cpu_seconds / done.trees
                    slowest = max(slowest, took.seconds)
                removed.append((spent / session.size(100, 2) * 1e6, None))
                longest.append((slowest * 1e3, None))

    for _ in range(session.runs):
        session.run(once(session.size(1_000_000, 400)))
    session.report("nothing_due_cpu", "us/round", idle)
    session.report("removed_cpu", "us/execution", removed)
    session.report("slowest_round", "ms", longest)
