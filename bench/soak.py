"""What a PostgreSQL database becomes under hours of work: `python -m bench.soak --minutes N`.

One client runs executions with state, waits and children without pause; once a minute a JSON line
says how large tables and indexes are, how many dead rows they hold, and what a step costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from bench.pgserver import Server
from polos import PolosClient, WorkflowContext, WorkflowState, workflow
from polos.store.postgres.location import Location

STEPS = 8
STEPS_OF_ONE = STEPS + 2
"""With the wait and the child; the child's own step is one more."""
AT_ONCE = 200
_TABLES = """
SELECT s.relname, pg_table_size(s.relid) AS heap, pg_indexes_size(s.relid) AS indexes,
  n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, autovacuum_count
FROM pg_stat_all_tables s WHERE schemaname = $1 AND relname <> 'migration' ORDER BY 1
"""
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8"
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'polos'"


class Notes(WorkflowState):
    """About 1 KB, of which each step changes two fields."""

    done: int = 0
    last: str = ""
    text: str = "x" * 900


@workflow(id="soak.child")
async def child(ctx: WorkflowContext, n: int) -> int:
    """One step."""
    return await ctx.step.run("only", lambda: n)


@workflow(id="soak.parent", state_schema=Notes)
async def parent(ctx: WorkflowContext, n: int) -> int:
    """Steps with state, a short wait, and a child."""
    for step in range(STEPS):
        ctx.state.done += await ctx.step.run(f"step{step}", lambda: 1)
        ctx.state.last = f"step {step} of {n}"
    await ctx.step.wait_for("pause", seconds=0.05)
    return ctx.state.done + await ctx.step.invoke_and_wait("child", child, n)


@dataclass
class Mark:
    """The counters at one moment."""

    at: float
    parents: int
    wal: float
    client_cpu: float
    server_cpu: float | None


def server_cpu(server: Server | None) -> float | None:
    """Return the processor seconds of a server's processes, those that have ended included."""
    if server is None:
        return None
    postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid, parent_pid = int(stat.parent.name), int(fields[1])
        if pid == postmaster:
            ticks += sum(int(each) for each in fields[11:15])
        elif parent_pid == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Soak:
    """Runs executions, a number at once, until it is stopped."""

    def __init__(self, client: PolosClient) -> None:
        self._client = client
        self._stopping = False
        self.parents = 0

    async def _one_after_another(self) -> None:
        while not self._stopping:
            n = self.parents
            if await parent(self._client, n) != STEPS + n:
                raise AssertionError("a wrong result")
            self.parents += 1

    async def run(self, seconds: float) -> None:
        """Run for so long, then let what runs end."""
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(self._one_after_another())
            await asyncio.sleep(seconds)
            self._stopping = True


class Report:
    """Reads the server's own counters, over a connection beside the client's."""

    def __init__(self, connection: Any, schema: str, soak: Soak, server: Server | None) -> None:
        self._connection = connection
        self._schema = schema
        self._soak = soak
        self._server = server

    async def mark(self) -> Mark:
        """Take the counters."""
        wal = await self._connection.fetchval(_WAL)
        cpu = server_cpu(self._server)
        return Mark(time.monotonic(), self._soak.parents, wal, time.process_time(), cpu)

    async def line(self, minute: int, before: Mark, now: Mark) -> dict[str, Any]:
        """Return what happened between two marks, and how large all is now."""
        parents = now.parents - before.parents
        steps = max(1, parents * (STEPS_OF_ONE + 1))
        tables = {
            name: {
                "heap": heap,
                "indexes": indexes,
                "live": live,
                "dead": dead,
                "hot": round(hot / updated, 3) if updated else None,
                "vacuums": vacuums,
            }
            for name, heap, indexes, live, dead, updated, hot, vacuums in (
                await self._connection.fetch(_TABLES, self._schema)
            )
        }
        total = sum(each["heap"] + each["indexes"] for each in tables.values())
        server = None
        if now.server_cpu is not None and before.server_cpu is not None:
            server = round((now.server_cpu - before.server_cpu) / steps * 1e6, 1)
        return {
            "minute": minute,
            "executions": now.parents * 2,
            "steps_per_second": round(steps / (now.at - before.at)),
            "client_cpu_us_per_step": round((now.client_cpu - before.client_cpu) / steps * 1e6, 1),
            "server_cpu_us_per_step": server,
            "wal_bytes_per_step": round((now.wal - before.wal) / steps),
            "bytes": total,
            "bytes_per_execution": round(total / max(1, now.parents * 2)),
            "bytes_per_step": round(total / max(1, now.parents * (STEPS_OF_ONE + 1))),
            "connections": await self._connection.fetchval(_CONNECTIONS),
            "tables": tables,
        }


async def soak(url: str, minutes: float, server: Server | None) -> None:
    """Run for so long, and print a line a minute."""
    location = Location(url)
    connection: Any = await asyncpg.connect(location.dsn)
    async with PolosClient(url) as client:
        work = Soak(client)
        report = Report(connection, location.schema, work, server)
        running = asyncio.create_task(work.run(minutes * 60))
        before, minute = await report.mark(), 0
        while not running.done():
            await asyncio.wait({running}, timeout=60)
            minute += 1
            if running.done() and minute > 1:
                break  # what is left of the last minute says little
            now = await report.mark()
            print(json.dumps(await report.line(minute, before, now)), flush=True)
            before = now
        await running
    await connection.close()


def main() -> None:
    """Run on the server of `--url`, or on one of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--url", help="of an empty schema; else a server of its own")
    given = parser.parse_args()
    if given.url is not None:
        asyncio.run(soak(given.url, given.minutes, None))
        return
    server = Server()
    try:
        asyncio.run(soak(server.url(), given.minutes, server))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
