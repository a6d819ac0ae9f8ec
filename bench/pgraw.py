"""The raw limit on PostgreSQL, and worker processes beside it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from bench.pgserver import Server
from bench.raw import BODY

AGAINST_RATE = "single-row inserts/s (asyncpg)"
AGAINST_TIME = "one single-row insert (asyncpg)"
TICKS = os.sysconf("SC_CLK_TCK")


class RawTable:
    """One connection, one prepared single-row insert; each is a commit of its own."""

    def __init__(self, connection: Any, insert: Any) -> None:
        self._connection = connection
        self._insert = insert

    async def seconds(self, count: int) -> float:
        """Insert `count` rows and return how long that took."""
        fetch = self._insert.fetch
        begun = time.perf_counter()
        for _ in range(count):
            await fetch(BODY)
        return time.perf_counter() - begun

    async def one(self, statement: str, *arguments: Any) -> Any:
        """Run a query and return its row."""
        return await self._connection.fetchrow(statement, *arguments)


@asynccontextmanager
async def raw_table(server: Server) -> AsyncIterator[RawTable]:
    """Open a table on the loop and the server that is measured."""
    driver: Any = asyncpg
    connection = await driver.connect(server.url())
    try:
        level = await connection.fetchval("SHOW synchronous_commit")
        sync = await connection.fetchval("SHOW fsync")
        if (level, sync) != ("on", "on"):
            raise RuntimeError(f"synchronous_commit={level}, fsync={sync}; expected on and on")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS raw_log (id bigserial PRIMARY KEY, body text)"
        )
        table = RawTable(
            connection, await connection.prepare("INSERT INTO raw_log (body) VALUES ($1)")
        )
        await table.seconds(20)
        yield table
    finally:
        await connection.close()


@contextmanager
def workers(url: str, count: int, concurrency: int = 1000) -> Iterator[list[Any]]:
    """Run worker processes; yields them once all take work."""
    command = [sys.executable, "-m", "bench.pgworker", url, str(concurrency)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a worker process did not start")
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def end(process: Any) -> float:
    """End a worker process by SIGTERM; returns its seconds of processor time."""
    process.terminate()
    said, _ = process.communicate(timeout=60)
    return float(said.rpartition("cpu ")[2])


def _ticks(pid: int, *, ended_children: bool) -> tuple[int, int]:
    """Return (parent, ticks of processor time) of a process."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own = int(stat[11]) + int(stat[12])
    return int(stat[1]), own + (int(stat[13]) + int(stat[14]) if ended_children else 0)


def server_cpu_seconds(server: Server) -> float:
    """Return the processor time of a server: its main process and all of its backends."""
    main = int((server.data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    ticks = _ticks(main, ended_children=True)[1]
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent, own = _ticks(int(path.name), ended_children=False)
            except OSError:
                continue  # it ended meanwhile
            ticks += own if parent == main else 0
    return ticks / TICKS


async def until(condition: Any, seconds: float = 60.0) -> None:
    """Wait until something holds that another process brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - another process cannot set an event
            await asyncio.sleep(0.002)
