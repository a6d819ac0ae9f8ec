"""Whole trees of executions as rows, and rows under another key."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from polos.store import trees
from polos.store.lining import SEALED_COLUMNS
from polos.store.postgres import keyed
from polos.store.postgres.links import Link

_COLUMNS = {
    table: (
        f"SELECT a.attname FROM pg_attribute a WHERE a.attrelid = to_regclass('{{s}}.{table}') "
        "AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    )
    for table in trees.TABLES
}
# One statement sees one moment; a row is its own JSON.
_DUMP = " UNION ALL ".join(
    f"SELECT '{table}', row_to_json(t)::text FROM {{s}}.{table} t WHERE root_id = $1"
    for table in trees.TABLES
)
_TAKEN = "SELECT id FROM {s}.execution WHERE id = ANY($1::text[])"
_KEYED = "SELECT id FROM {s}.execution WHERE workflow_id = $1 AND idempotency_key = $2"
_HERE = (
    "SELECT hash FROM {s}.blob WHERE hash = ANY($1::text[]) AND chunks IS NOT NULL "
    "ORDER BY hash FOR KEY SHARE"
)


async def dump(link: Link, root_id: str) -> dict[str, list[dict[str, Any]]]:
    """Read all rows of a tree, by table, as of one moment."""
    found: dict[str, list[dict[str, Any]]] = {table: [] for table in trees.TABLES}
    for table, text in await link.fetch(_DUMP, root_id):
        found[table].append(json.loads(text))
    return found


async def columns(link: Link, table: str) -> list[str]:
    """Return the names of a table's columns."""
    return [row[0] for row in await link.fetch(_COLUMNS[table])]


async def restore(
    link: Link,
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    blobs: Sequence[str],
) -> list[str]:
    """Write the rows of a tree; returns the ids that are taken, and writes nothing then."""
    ids = [row["id"] for row in tables["execution"]]
    taken = [row[0] for row in await link.fetch(_TAKEN, ids)]
    for row in tables["execution"]:
        if row.get("idempotency_key") is not None:
            key = (row["workflow_id"], row["idempotency_key"])
            taken += [found[0] for found in await link.fetch(_KEYED, *key)]
    here = {row[0] for row in await link.fetch(_HERE, list(blobs))}
    missing = [hash for hash in blobs if hash not in here]
    if taken or missing:
        return [*taken, *missing]
    for table in trees.TABLES:
        rows = tables.get(table, ())
        known = await columns(link, table)
        for row in rows:
            names = trees.columns_of([row], known)
            text = trees.statement(table, names, lambda number: f"${number}", "{s}.")
            await link.fetch(text, *[row[name] for name in names])
    for key, execution in trees.holders(tables["execution"]):
        await keyed.carry(link, key, execution)
    return []


async def page(
    link: Link, table: str, after: Sequence[Any] | None, limit: int
) -> list[tuple[Any, ...]]:
    """Read keys and values that may be encrypted, in the order of the keys."""
    key, values = SEALED_COLUMNS[table]
    names = ", ".join(key)
    marks = ", ".join(f"${number + 2}" for number in range(len(key)))
    where = "" if after is None else f"WHERE ({names}) > ({marks}) "
    found = await link.fetch(
        f"SELECT {names}, {', '.join(values)} FROM {{s}}.{table} {where}ORDER BY {names} LIMIT $1",
        limit,
        *(after or ()),
    )
    return [tuple(row) for row in found]


async def rewrite(link: Link, table: str, rows: Sequence[trees.Rewrite]) -> int:
    """Put values in the place of others, where these still are there; returns how many."""
    key, _ = SEALED_COLUMNS[table]
    where = " AND ".join(f"{name} = ${number + 3}" for number, name in enumerate(key))
    count = 0
    for row in rows:
        found = await link.fetch(
            f"UPDATE {{s}}.{table} SET {row.column} = $1 "
            f"WHERE {where} AND {row.column} = $2 RETURNING 1",
            row.new,
            row.old,
            *row.key,
        )
        count += len(found)
    return count
