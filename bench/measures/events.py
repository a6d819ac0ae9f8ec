"""From publishing an event, or telling of a step, until who waits for it, or reads, has it."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.pgraw import AGAINST_TIME as AGAINST_INSERT
from bench.pgraw import raw_table
from bench.pgserver import Server
from bench.raw import AGAINST_TIME, RawLog
from bench.report import Pair
from bench.session import Session, open_client, p99, url_of
from bench.teller import TELLER
from polos import PolosClient, WorkflowContext, events, workflow

PLACES = ("here", "elsewhere", "tree")
"""Who publishes; `tree`: an execution of another process tells of itself."""
Say = Callable[[], Awaitable[None]]
Raw = Callable[[], Awaitable[float]]


@dataclass
class Times:
    """Milliseconds of each exchange, and of a raw commit beside it."""

    code: list[float] = field(default_factory=list[float])
    reader: list[float] = field(default_factory=list[float])
    raw: list[float] = field(default_factory=list[float])


@workflow(id="bench_hearer")
async def hearer(ctx: WorkflowContext, count: int) -> list[float]:
    """Wait for so many events; returns how old each was when the code had it, in ms."""
    took: list[float] = []
    for _ in range(count):
        got = await ctx.step.wait_for_event("asked", "asked")
        took.append((time.monotonic_ns() - got.data["at"]) / 1e6)
        await ctx.step.publish_event("heard", "heard", {})
    return took


async def exchange(client: PolosClient, count: int, say: Say, raw: Raw) -> Times:
    """Publish one event after the other, each when the code waits again."""
    times = Times()
    asked = events.subscribe(client, "asked", after=0)

    async def read() -> None:
        async for event in asked:
            times.reader.append((time.monotonic_ns() - event.data["at"]) / 1e6)

    reading = asyncio.create_task(read())
    handle = await hearer.invoke(client, count)
    heard = events.subscribe(client, "heard", after=0)
    for n in range(count):
        if n:
            await anext(heard)
        await _until_waiting(client, handle.id)
        times.raw.append(await raw() * 1e3)
        await say()
    times.code = await handle.result()
    reading.cancel()
    return times


async def _until_waiting(client: PolosClient, execution_id: str) -> None:
    while True:
        if (await client.get_execution(execution_id))["status"] == "waiting":
            return
        await asyncio.sleep(0.001)


async def follow(client: PolosClient, url: str, count: int, raw: Raw) -> Times:
    """Read what an execution of another process tells, one event after the other."""
    times = Times()
    with beside("teller", url) as (say, execution_id):
        told = events.stream_workflow(client, TELLER, execution_id)
        for _ in range(count):
            times.raw.append(await raw() * 1e3)
            await say()
            async for event in told:
                if event.event_type == "told":
                    times.reader.append((time.monotonic_ns() - event.data["at"]) / 1e6)
                    break
    return times


@contextmanager
def beside(module: str, url: str) -> Iterator[tuple[Say, str]]:
    """Run another process that does something when it is told; yields its first line, too."""
    command = [sys.executable, "-m", f"bench.{module}", url]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    pipe = process.stdin

    async def say() -> None:
        pipe.write("\n")

    try:
        yield say, first
    finally:
        pipe.close()
        process.wait()


def measure(session: Session) -> None:
    """Measure on SQLite and on PostgreSQL, published by this process and by another."""
    count = session.size(300, 10)

    async def sqlite(where: str) -> Times:
        with session.fresh() as folder, RawLog(folder) as log:

            async def raw() -> float:
                return log.seconds(1)

            async with open_client(folder) as client:
                return await _spoken(client, url_of(folder), where, count, raw)

    for where in PLACES:
        runs = [session.run(sqlite(where)) for _ in range(session.runs)]
        _report(session, f"sqlite_{where}", runs, AGAINST_TIME)
    server = Server(fsync=True)
    try:
        for where in PLACES:
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
            return await _spoken(client, url, where, count, raw)


async def _spoken(client: PolosClient, url: str, where: str, count: int, raw: Raw) -> Times:
    async def say() -> None:
        await events.publish(client, "asked", {"data": {"at": time.monotonic_ns()}})

    if where == "here":
        return await exchange(client, count, say, raw)
    if where == "tree":
        return await follow(client, url, count, raw)
    with beside("speaker", url) as (other, _):
        return await exchange(client, count, other, raw)


def _report(session: Session, name: str, runs: list[Times], against: str) -> None:
    for what in ("code", "reader") if runs[0].code else ("reader",):
        pairs: dict[str, list[Pair]] = {"p50": [], "p99": []}
        for times in runs:
            took: list[float] = getattr(times, what)
            limit = statistics.median(times.raw)
            pairs["p50"].append((statistics.median(took), limit))
            pairs["p99"].append((p99(took), limit))
        for at, found in pairs.items():
            session.report(f"{name}_{what}_{at}", "ms", found, against)
