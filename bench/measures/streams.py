"""Chunks that an execution streams out, each to all readers, as they become durable."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

from bench.raw import BODY, RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import require
from polos import PolosClient, Workflow, WorkflowContext, workflow

GROUP = 500
"""Rows of a raw commit: about as many as there are chunks in one of ours."""
READER = """
import asyncio, sys, time
from polos import PolosClient

async def main():
    async with PolosClient(sys.argv[1]) as client:
        print("ready", flush=True)
        execution_id = sys.stdin.readline().strip()
        count = 0
        async for chunk in client.stream(execution_id):
            count += 1
        print(count, time.time(), flush=True)

asyncio.run(main())
"""


@workflow(id="bench_emit")
async def emitting(ctx: WorkflowContext, count: int) -> int:
    """Emit chunks of about 100 bytes from around the steps."""
    for number in range(count):
        await ctx.emit({"n": number, "text": BODY[:80]})
    return count


@workflow(id="bench_stream")
async def streaming(ctx: WorkflowContext, count: int) -> int:
    """Stream the same out of a step, with a record of no size."""

    async def chunks():
        for number in range(count):
            yield {"n": number, "text": BODY[:80]}

    return await ctx.step.stream("chunks", chunks, collect=len)


async def count_chunks(client: PolosClient, execution_id: str) -> int:
    """Read a whole stream."""
    count = 0
    async for _ in client.stream(execution_id):
        count += 1
    return count


def raw_rate(raw: RawLog, count: int) -> float:
    """Insert as many rows, some hundred in a commit, and return rows per second."""
    connection = raw.connection
    connection.execute(
        "CREATE TABLE IF NOT EXISTS chunks (topic TEXT, seq INTEGER, body TEXT, "
        "PRIMARY KEY (topic, seq)) WITHOUT ROWID"
    )
    begun = time.perf_counter()
    for first in range(0, count, GROUP):
        with connection:
            rows = [("t", first + n, BODY) for n in range(GROUP)]
            connection.executemany("INSERT INTO chunks VALUES (?, ?, ?)", rows)
    return count / (time.perf_counter() - begun)


def measure(session: Session) -> None:
    """Measure chunks per second, from the start of the execution until the last reader has all."""
    count = session.size(60_000, 1000)
    against = f"rows/s, {GROUP} in a commit"
    for name, work, readers in (
        ("emit_10_readers", emitting, 10),
        ("step_10_readers", streaming, 10),
        ("emit_1_reader", emitting, 1),
        ("emit_unread", emitting, 0),
    ):
        cpu: list[Pair] = []

        async def once(
            client: PolosClient,
            raw: RawLog,
            work: Workflow[int] = work,
            readers: int = readers,
            cpu: list[Pair] = cpu,
        ) -> Pair:
            await work(client, 10)
            limit = raw_rate(raw, count)
            with stopwatch() as took:
                handle = await work.invoke(client, count)
                reading = (count_chunks(client, handle.id) for _ in range(readers))
                found = await asyncio.gather(handle.result(), *reading)
            require(found, [count] * (readers + 1))
            cpu.append((count / took.cpu_seconds, None))
            return count / took.seconds, limit

        session.report(name, "chunks/s", session.pairs(once), against)
        session.report(f"{name}_cpu", "chunks/CPU s", cpu)
    measure_elsewhere(session, count, against)


def measure_elsewhere(session: Session, count: int, against: str) -> None:
    """Measure with one reader in another process."""

    async def once(client: PolosClient, raw: RawLog) -> Pair:
        await emitting(client, 10)
        limit = raw_rate(raw, count)
        place = client.url
        with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs here yet
            [sys.executable, "-c", READER, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as reader:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdout.readline()
            begun = time.time()
            handle = await emitting.invoke(client, count)
            reader.stdin.write(f"{handle.id}\n")
            reader.stdin.flush()
            await handle.result()
            answer = await asyncio.to_thread(reader.stdout.readline)
        found, ended = answer.split()
        require(int(found), count)
        return count / (float(ended) - begun), limit

    session.report("emit_other_process", "chunks/s", session.pairs(once), against)
