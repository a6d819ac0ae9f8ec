"""How soon executions are found by their state, in a database that holds a million of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import asyncpg

from bench.loader import load
from bench.pgserver import Server
from bench.report import Pair
from bench.session import Session, open_client
from polos import PolosClient, WorkflowContext, WorkflowState, workflow
from polos.core import where

CUSTOMERS = 10_000
TRIES = 20


class Order(WorkflowState):
    """What orders are found by."""

    customer_id: str = ""
    amount: int = 0


@workflow(id="bench_finding", state_schema=Order, index_state=["customer_id", "amount"])
async def order(ctx: WorkflowContext) -> None:
    """Never runs here: its executions are loaded."""


def fill(path: Path, count: int) -> None:
    """Load executions, and what they are found by."""
    load(path, count, order.id)
    connection = apsw.Connection(str(path))
    connection.create_scalar_function(
        "rank", lambda *values: where.rank(values[0]), 1, deterministic=True
    )
    connection.execute("PRAGMA synchronous = off")
    connection.execute("BEGIN")
    for name, value in (
        ("state.customer_id", f"'c' || (n % {CUSTOMERS})"),
        ("state.amount", "n % 1000"),
    ):
        connection.execute(
            "INSERT INTO field_index (root_id, execution_id, path, workflow_id, value, number) "
            f"SELECT root_id, id, ?, workflow_id, rank({value}), n % 1000 "
            "FROM (SELECT root_id, id, workflow_id, row_number() OVER (ORDER BY id) AS n "
            "FROM execution)",
            (name,),
        )
        connection.execute("INSERT INTO indexed_field VALUES (?, ?, '')", (order.id, name))
    connection.execute("COMMIT")
    connection.close()


PLACES = ("state.customer_id", "state.amount")
EXECUTIONS = """
INSERT INTO execution (root_id, id, workflow_id, root_workflow_id, status, attempt, payload, result,
    created_at, started_at, completed_at)
  SELECT id, id, $2, $2, 'completed', 1, '{"steps": 1}', '0', 1000 * at, 1000 * at, 1000 * at
  FROM (SELECT $3 + n AS at, substr(h, 1, 8) || '-' || substr(h, 9) || '-7000-8000-000000000000'
    AS id FROM generate_series(1, $1::int) n, lpad(to_hex($3::bigint + n), 12, '0') h) made
"""
STATES = """
INSERT INTO state (root_id, execution_id, version, at, body)
  SELECT root_id, id, 0, created_at, '{"done":0}' FROM execution
"""
CUSTOMERS_OF = f"""
INSERT INTO field_index (root_id, execution_id, path, workflow_id, value)
  SELECT id, id, 'state.customer_id', workflow_id,
    '3c' || (created_at / 1000 - $1::bigint) % {CUSTOMERS} FROM execution
"""
AMOUNTS_OF = """
INSERT INTO field_index (root_id, execution_id, path, workflow_id, value, number)
  SELECT e.id, e.id, 'state.amount', e.workflow_id, r.rank, r.n FROM execution e
  JOIN unnest($2::int[], $3::text[]) r (n, rank) ON r.n = (e.created_at / 1000 - $1::bigint) % 1000
"""


async def fill_server(server: Server, count: int) -> str:
    """Load the same into PostgreSQL; returns the URL."""
    url = server.url(schema="polos")
    async with PolosClient(url) as client:
        await client.list_executions()
    settings = {"search_path": "polos", "maintenance_work_mem": "256MB"}
    connection: Any = await asyncpg.connect(server.url(), server_settings=settings)
    indexes = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'polos' "
        "AND tablename IN ('execution', 'field_index') AND indexname NOT LIKE '%pkey'"
    )
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    first = int(time.time() * 1000) - count - 1
    numbers = list(range(1000))
    await connection.execute(EXECUTIONS, count, order.id, first)
    await connection.execute(STATES)
    await connection.execute(CUSTOMERS_OF, first)
    await connection.execute(AMOUNTS_OF, first, numbers, [where.rank(n) for n in numbers])
    for place in PLACES:
        await connection.execute(
            "INSERT INTO indexed_field VALUES ($1, $2, '') ON CONFLICT (workflow_id, path) "
            "DO UPDATE SET since = ''",
            order.id,
            place,
        )
    for _, definition in indexes:
        await connection.execute(definition)
    for table in ("execution", "state", "field_index"):
        await connection.execute(f"VACUUM ANALYZE {table}")
    await connection.close()
    return url


ASKED: dict[str, dict[str, Any]] = {
    "equal": {"state.customer_id": "c77"},
    "equal_none": {"state.customer_id": "nobody"},
    "another": {"state.amount": ("!=", 500)},
    "range_common": {"state.amount": (">", 500)},
    "range_rare": {"state.amount": [(">", 998)], "state.customer_id": ("<", "c2")},
    "in_many": {"state.amount": ("in", list(range(500)))},
    "both": {"state.customer_id": ("in", ["c5", "c6"]), "state.amount": ("<", 10)},
    "failed": {"state.amount": (">", 500), "status": "failed"},
}


def measure(session: Session) -> None:
    """List 50 by each condition, from the top and from further down; count by a field."""
    count = session.size(1_000_000, 3000)
    with session.fresh() as folder:
        fill(folder / "polos.db", count)
        for name, asked in ASKED.items():
            runs: list[Pair] = [
                (session.run(took(folder, asked)), None) for _ in range(session.runs)
            ]
            session.report(name, "CPU ms", runs)
        counted: list[Pair] = [(session.run(counting(folder)), None) for _ in range(session.runs)]
        session.report("count_by_field", "CPU ms", counted)
    server = Server(fsync=False)
    try:
        url = session.run(fill_server(server, count))
        for name, asked in ASKED.items():
            runs = [(session.run(took_there(url, asked)), None) for _ in range(session.runs)]
            session.report(f"postgres_{name}", "ms", runs)
    finally:
        server.stop()


async def took(folder: Path, asked: Mapping[str, Any]) -> float:
    """Return the median of some lists."""
    async with open_client(folder) as client:
        return await listing(client, asked, time.process_time)


async def took_there(url: str, asked: Mapping[str, Any]) -> float:
    """Return the median of some lists; the server's work is in it, so this is by the clock."""
    async with PolosClient(url) as client:
        return await listing(client, asked, time.perf_counter)


async def listing(client: PolosClient, asked: Mapping[str, Any], now: Any) -> float:
    """List from the top and from further down; return the slower median."""
    (newest,) = await client.list_executions(limit=1)
    earlier = {"created_at": ("<", _before(newest))}
    (below,) = await client.list_executions(where=earlier, limit=1)
    medians: list[float] = []
    for before in (None, below["id"]):
        times: list[float] = []
        for _ in range(TRIES):
            begun = now()
            found = await client.list_executions(workflow_id=order.id, where=asked, before=before)
            times.append((now() - begun) * 1e3)
            assert found.note is None
        medians.append(sorted(times)[TRIES // 2])
    return max(medians)


def _before(execution: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(execution["created_at"]) - timedelta(seconds=1)


async def counting(folder: Path) -> float:
    """Return how long it takes to count all by customer."""
    async with open_client(folder) as client:
        begun = time.process_time()
        await client.count_executions(group_by="state.customer_id", workflow_id=order.id)
        return (time.process_time() - begun) * 1e3
