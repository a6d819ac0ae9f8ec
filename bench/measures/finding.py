"""How soon executions are found by their state, in a file that holds a million of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apsw

from bench.loader import load
from bench.report import Pair
from bench.session import Session, open_client
from polos import WorkflowContext, WorkflowState, workflow
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


ASKED: dict[str, dict[str, Any]] = {
    "equal": {"state.customer_id": "c77"},
    "range_common": {"state.amount": (">", 500)},
    "range_rare": {"state.amount": [(">", 998)], "state.customer_id": ("<", "c2")},
    "both": {"state.customer_id": ("in", ["c5", "c6"]), "state.amount": ("<", 10)},
}


def measure(session: Session) -> None:
    """List 50 by each condition, and count by a field."""
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


async def took(folder: Path, asked: dict[str, Any]) -> float:
    """Return the median of some lists."""
    async with open_client(folder) as client:
        times: list[float] = []
        for _ in range(TRIES):
            begun = time.process_time()
            found = await client.list_executions(where=asked)
            times.append((time.process_time() - begun) * 1e3)
            assert found.note is None
        return sorted(times)[TRIES // 2]


async def counting(folder: Path) -> float:
    """Return how long it takes to count all by customer."""
    async with open_client(folder) as client:
        begun = time.process_time()
        await client.count_executions(group_by="state.customer_id", workflow_id=order.id)
        return (time.process_time() - begun) * 1e3
