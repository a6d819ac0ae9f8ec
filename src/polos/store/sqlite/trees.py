"""Whole trees of executions as rows, and rows under another key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from polos.store import trees
from polos.store.lining import SEALED_COLUMNS
from polos.store.sqlite import keyed


def dump(connection: apsw.Connection, root_id: str) -> dict[str, list[dict[str, Any]]]:
    """Read all rows of a tree, by table, as of one moment."""
    found: dict[str, list[dict[str, Any]]] = {}
    with connection:
        for table in trees.TABLES:
            names = columns(connection, table)
            cursor = connection.execute(
                f"SELECT {', '.join(names)} FROM {table} WHERE root_id = ? ORDER BY 1, 2, 3",
                (root_id,),
            )
            found[table] = [trees.typed(dict(zip(names, row, strict=True))) for row in cursor]
    return found


def columns(connection: apsw.Connection, table: str) -> list[str]:
    """Return the names of a table's columns."""
    return [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]


def restore(
    connection: apsw.Connection,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    blobs: Sequence[str],
) -> list[str]:
    """Write the rows of a tree; returns the ids that are taken, and writes nothing then."""
    ids = json.dumps([row["id"] for row in tables["execution"]])
    taken: list[Any] = connection.execute(
        "SELECT id FROM execution WHERE id IN (SELECT value FROM json_each(?))", (ids,)
    ).fetchall()
    missing = connection.execute(
        "SELECT value FROM json_each(?) WHERE value NOT IN "
        "(SELECT hash FROM blob WHERE chunks IS NOT NULL)",
        (json.dumps(list(blobs)),),
    ).fetchall()
    for row in tables["execution"]:
        if row.get("idempotency_key") is not None:
            taken += connection.execute(
                "SELECT id FROM execution WHERE workflow_id = ? AND idempotency_key = ?",
                (row["workflow_id"], row["idempotency_key"]),
            ).fetchall()
    if taken or missing:
        return [str(row[0]) for row in [*taken, *missing]]
    for table in trees.TABLES:
        rows = tables.get(table, ())
        names = trees.columns_of(rows, columns(connection, table))
        if rows:
            text = trees.statement(table, names, lambda number: f"?{number}")
            connection.executemany(text, [[row.get(name) for name in names] for row in rows])
    for key, execution in trees.holders(tables["execution"]):
        keyed.carry(connection, key, execution)
    return []


def page(
    connection: apsw.Connection, table: str, after: Sequence[Any] | None, limit: int
) -> list[tuple[Any, ...]]:
    """Read keys and values that may be encrypted, in the order of the keys."""
    key, values = SEALED_COLUMNS[table]
    names = ", ".join(key)
    where = "" if after is None else f"WHERE ({names}) > ({', '.join('?' * len(key))}) "
    found: list[Any] = connection.execute(
        f"SELECT {names}, {', '.join(values)} FROM {table} {where}ORDER BY {names} LIMIT ?",
        (*(after or ()), limit),
    ).fetchall()
    return found


def rewrite(connection: apsw.Connection, table: str, rows: Sequence[trees.Rewrite]) -> int:
    """Put values in the place of others, where these still are there; returns how many."""
    key, _ = SEALED_COLUMNS[table]
    where = " AND ".join(f"{name} = ?" for name in key)
    before = connection.total_changes()
    for row in rows:
        connection.execute(
            f"UPDATE {table} SET {row.column} = ? WHERE {where} AND {row.column} = ?",
            (row.new, *row.key, row.old),
        )
    return connection.total_changes() - before
