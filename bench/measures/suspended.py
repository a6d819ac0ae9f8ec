"""Executions that ask: what one costs while it waits, and how soon its code has the answer."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measures.timers import CHUNK, COUNT, Observer, resident_bytes
from bench.pgraw import AGAINST_TIME as AGAINST_INSERT
from bench.pgraw import raw_table
from bench.pgserver import Server
from bench.raw import AGAINST_TIME, RawLog
from bench.report import Pair
from bench.session import Session, open_client, p99, url_of
from polos import BatchWorkflowInput, ExecutionHandle, PolosClient, WorkflowContext, workflow

PARKED = 10_000
"""So many coroutines are kept in memory; the others are evicted, and replayed."""


class Seen:
    """Milliseconds from an answer to the code that has it."""

    went_on: list[float] = []
    each: asyncio.Event


@workflow(id="bench_asker")
async def asker(ctx: WorkflowContext, number: int) -> None:
    """Ask once."""
    answer = await ctx.step.suspend("ok", {"number": number, "ask": "go on?"})
    Seen.went_on.append((time.monotonic_ns() - answer["data"]["at_ns"]) / 1e6)
    Seen.each.set()


async def until_gone_on(count: int) -> None:
    """Wait until the code of so many has its answer."""
    while len(Seen.went_on) < count:
        Seen.each.clear()
        await Seen.each.wait()


@dataclass
class Found:
    """What was measured; times in milliseconds."""

    memory: float = 0.0
    stored: float = 0.0
    rate: float = 0.0
    accepted: list[float] = field(default_factory=list[float])
    parked: list[float] = field(default_factory=list[float])
    evicted: list[float] = field(default_factory=list[float])
    elsewhere: list[float] = field(default_factory=list[float])


Waiting = Callable[[], Awaitable[int]]
"""Counts the executions that wait."""


async def ask(client: PolosClient, waiting: Waiting, count: int) -> list[ExecutionHandle]:
    """Start `count` executions, and return when all of them wait."""
    Seen.each = asyncio.Event()
    handles: list[ExecutionHandle] = []
    before = await waiting()
    for first in range(0, count, CHUNK):
        some = range(first, min(first + CHUNK, count))
        inputs = [BatchWorkflowInput(id=asker.id, payload=number) for number in some]
        handles += await client.batch_invoke(inputs)
    while await waiting() < before + count:  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.05)
    return handles


async def answer(handles: Sequence[ExecutionHandle], accepted: list[float]) -> list[float]:
    """Answer one after the other; returns milliseconds until the code of each went on."""
    Seen.went_on = []
    for number, handle in enumerate(handles):
        begun = time.monotonic_ns()
        await handle.resume("ok", {"at_ns": begun})
        accepted.append((time.monotonic_ns() - begun) / 1e6)
        await until_gone_on(number + 1)
    return Seen.went_on


async def answer_elsewhere(url: str, handles: Sequence[ExecutionHandle]) -> list[float]:
    """Let another process answer."""
    Seen.went_on = []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.answerer", url), stdin=asyncio.subprocess.PIPE
    )
    await process.communicate("\n".join(handle.id for handle in handles).encode())
    if process.returncode:
        raise RuntimeError("the other process failed")
    await until_gone_on(len(handles))
    return Seen.went_on


async def suspend_and_resume(session: Session, folder: Path, count: int) -> Found:
    """Let `count` executions ask, and answer some of them."""
    found = Found()
    sample = session.size(500, 10)
    async with open_client(folder) as client:
        observer = Observer(folder, COUNT.replace("bench_sleeper", asker.id))

        async def waiting() -> int:
            return observer.count("waiting")

        try:
            await ask(client, waiting, session.size(2000, 20))
            memory, stored = resident_bytes(), observer.size()
            begun = time.monotonic()
            handles = await ask(client, waiting, count)
            found.rate = count / (time.monotonic() - begun)
            found.memory = (resident_bytes() - memory) / count
            found.stored = (observer.size() - stored) / count
            found.parked = await answer(handles[-sample:], found.accepted)
            found.elsewhere = await answer_elsewhere(url_of(folder), handles[-2 * sample : -sample])
            if count > PARKED + 2 * sample:
                found.evicted = await answer(handles[:sample], [])
        finally:
            observer.close()
    return found


async def on_postgres(session: Session, server: Server) -> tuple[Found, float]:
    """Let some executions ask and be answered on a server; also returns what a raw insert takes."""
    found = Found()
    sample = session.size(300, 10)
    url = server.url(schema="suspended")
    async with raw_table(server) as table, PolosClient(url) as client:

        async def waiting() -> int:
            return await client.count_executions(workflow_id=asker.id, status="waiting")

        rows = session.size(500, 10)
        limit = await table.seconds(rows) / rows * 1e3
        handles = await ask(client, waiting, 2 * sample)
        found.parked = await answer(handles[-sample:], found.accepted)
        found.elsewhere = await answer_elsewhere(url, handles[:sample])
    return found, limit


def measure(session: Session) -> None:
    """Measure once: the sample is told in equal parts."""
    count = session.size(100_000, 60)
    with session.fresh() as folder:
        with RawLog(folder) as raw:
            rows = session.size(500, 10)
            limit = raw.seconds(rows) / rows * 1e3
        found = session.run(suspend_and_resume(session, folder, count))
    session.report("asking", "executions/s", [(found.rate, 1000 / limit)], "single-row commits/s")
    session.report("memory", "bytes/suspension", [(found.memory, None)])
    session.report("stored", "bytes/suspension", [(found.stored, None)])
    _report(session, "", found, (limit, AGAINST_TIME))
    server = Server(fsync=True)
    try:
        found, limit = session.run(on_postgres(session, server))
    finally:
        server.stop()
    _report(session, "postgres_", found, (limit, AGAINST_INSERT))


def _report(session: Session, prefix: str, found: Found, raw: tuple[float, str]) -> None:
    limit, against = raw
    times = {
        "resume": found.accepted,
        "goes_on": found.parked,
        "goes_on_evicted": found.evicted,
        "goes_on_elsewhere": found.elsewhere,
    }
    for name, each in times.items():
        part = max(len(each) // session.runs, 1)
        parts = [each[n : n + part] for n in range(0, part * session.runs, part)]
        for at, pick in (("p50", statistics.median), ("p99", p99)):
            pairs: list[Pair] = [(pick(some), limit) for some in parts if some]
            if pairs:
                session.report(f"{prefix}{name}_{at}", "ms", pairs, against)
