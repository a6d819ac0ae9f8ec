"""From changing a state until who watches it has the change, which is durable then."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.pgraw import AGAINST_TIME as AGAINST_INSERT
from bench.pgraw import raw_table
from bench.pgserver import Server
from bench.raw import AGAINST_TIME, RawLog
from bench.report import Pair
from bench.session import Session, open_client, p99, url_of
from bench.watched import watched
from polos import PolosClient

Raw = Callable[[], Awaitable[float]]
Times = tuple[list[float], list[float]]
"""Milliseconds of each change, and of the raw commits beside them."""


async def here(client: PolosClient, count: int, raw: Raw) -> Times:
    """Watch an execution of this process."""
    handle = await watched.invoke(client, count)
    return await _times(client, handle.id, count, raw)


async def elsewhere(client: PolosClient, url: str, count: int, raw: Raw) -> Times:
    """Watch an execution of another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.watched", url, str(count), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    execution_id = (await process.stdout.readline()).decode().strip()
    times = await _times(client, execution_id, count, raw)
    await process.wait()
    return times


async def _times(client: PolosClient, execution_id: str, count: int, raw: Raw) -> Times:
    took: list[float] = []
    raws: list[float] = []
    last: Any = None
    async for last in client.watch_state(execution_id, "at", after_version=0):
        took.append((time.monotonic_ns() - last["value"]) / 1e6)
        raws.append(await raw() * 1e3)
    if len(took) != count:
        raise RuntimeError(f"{len(took)} of {count} changes came; the last was {last}")
    return took, raws


def measure(session: Session) -> None:
    """Measure on SQLite and on PostgreSQL, changed by this process and by another."""
    count = session.size(100, 5)

    async def sqlite(where: str) -> Times:
        with session.fresh() as folder, RawLog(folder) as log:

            async def raw() -> float:
                return log.seconds(1)

            async with open_client(folder) as client:
                if where == "here":
                    return await here(client, count, raw)
                return await elsewhere(client, url_of(folder), count, raw)

    for where in ("here", "elsewhere"):
        runs = [session.run(sqlite(where)) for _ in range(session.runs)]
        _report(session, f"sqlite_{where}", runs, AGAINST_TIME)
    server = Server(fsync=True)
    try:
        for where in ("here", "elsewhere"):
            runs = [session.run(_postgres(server, where, count, n)) for n in range(session.runs)]
            _report(session, f"postgres_{where}", runs, AGAINST_INSERT)
    finally:
        server.stop()


async def _postgres(server: Server, where: str, count: int, run: int) -> Times:
    url = server.url(schema=f"{where}{run}")
    async with raw_table(server) as table:

        async def raw() -> float:
            return await table.seconds(1)

        async with PolosClient(url) as client:
            if where == "here":
                return await here(client, count, raw)
            return await elsewhere(client, url, count, raw)


def _report(session: Session, name: str, runs: list[Times], against: str) -> None:
    for at, pick in (("p50", statistics.median), ("p99", p99)):
        pairs: list[Pair] = [(pick(took), statistics.median(raws)) for took, raws in runs]
        session.report(f"{name}_{at}", "ms", pairs, against)
