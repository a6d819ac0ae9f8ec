"""Finding executions by conditions, and the places that workflows declared to be found by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polos.core.model import Execution, StateEntry
from polos.core.where import Query, Tally
from polos.store import rows
from polos.store.finding import Text, tallies, tally_text
from polos.store.postgres import queries
from polos.store.postgres.links import Link

_DECLARED = "SELECT path FROM {s}.indexed_field WHERE workflow_id = $1"
_ALL_DECLARED = "SELECT workflow_id, path, since FROM {s}.indexed_field"
_DECLARE = (
    "INSERT INTO {s}.indexed_field (workflow_id, path, since) "
    "SELECT k.*, $3 FROM unnest($1::text[], $2::text[]) k ON CONFLICT DO NOTHING"
)
_WORKFLOW_IDS = (
    "WITH RECURSIVE w AS ((SELECT workflow_id FROM {s}.execution ORDER BY workflow_id LIMIT 1) "
    "UNION ALL SELECT (SELECT e.workflow_id FROM {s}.execution e "
    "WHERE e.workflow_id > w.workflow_id ORDER BY e.workflow_id LIMIT 1) FROM w "
    "WHERE w.workflow_id IS NOT NULL) SELECT workflow_id FROM w WHERE workflow_id IS NOT NULL"
)
_LATEST_STATES = (
    "SELECT k.id, t.* FROM unnest($1::text[], $2::text[]) k (root_id, id) CROSS JOIN LATERAL "
    "(SELECT version, step_key, at, body, NULL, attempt, origin FROM {s}.state "
    "WHERE root_id = k.root_id AND execution_id = k.id AND version >= coalesce((SELECT s.version "
    "FROM {s}.state s WHERE s.root_id = k.root_id AND s.execution_id = k.id "
    "AND left(s.body, 1) = '{' AND (s.jump IS NOT NULL OR left(s.body, 1) = '{') "
    "ORDER BY s.version DESC LIMIT 1), 0) ORDER BY version) t"
)


class _Postgres:
    cross_join = "JOIN"
    is_open = "e.completed_at IS NULL"
    use_open = use_in_error = ""
    has_lateral = True
    by_bytes = ' COLLATE "C"'
    position = "strpos"

    def one(self, number: int, kind: str) -> str:
        return f"${number}::{kind}"

    def any_of(self, number: int, kind: str) -> str:
        return f"= ANY(${number}::{kind}[])"

    def each_of(self, number: int, kind: str) -> str:
        return f"SELECT unnest(${number}::{kind}[])"

    def many(self, values: Sequence[Any]) -> Any:
        return list(values)


DIALECT = _Postgres()


async def find(link: Link, query: Query, limit: int) -> list[Execution]:
    """List executions, newest first."""
    text = Text(DIALECT, query)
    statement = text.find(limit)
    return [rows.execution(tuple(r)) for r in await link.fetch(statement, *text.arguments)]


async def floor(link: Link, query: Query, skip: int) -> str | None:
    """Return the id behind so many newest executions of the query's workflow."""
    text = Text(DIALECT, query)
    return await _value(link, text.floor(skip), text)


async def count_entries(link: Link, query: Query, most: int) -> int:
    """Count what is looked up by the query's place, up to so many."""
    text = Text(DIALECT, query)
    return await _value(link, text.count_entries(most), text)


async def count_values(link: Link, query: Query, most: int) -> int:
    """Count the values that are looked up at the query's place, up to so many."""
    text = Text(DIALECT, query)
    return await _value(link, text.count_values(most), text)


async def _value(link: Link, statement: str, text: Text) -> Any:
    found = await link.fetch(statement, *text.arguments)
    return found[0][0] if found else None


async def tally(link: Link, query: Query, group: str | None, total: str | None) -> list[Tally]:
    """Count executions, by a column or an indexed place."""
    statement, arguments = tally_text(DIALECT, query, group, total)
    return tallies(await link.fetch(statement, *arguments), group)


async def latest_states(link: Link, keys: Sequence[tuple[str, str]]) -> dict[str, list[StateEntry]]:
    """Read what the latest states of executions, given by (root, id), are made of."""
    found: dict[str, list[StateEntry]] = {id_: [] for _, id_ in keys}
    for record in await link.fetch(_LATEST_STATES, *queries.columns(keys, 2)) if keys else []:
        found[record[0]].append(rows.state(tuple(record)[1:]))
    return found


async def declared(link: Link, workflow_id: str) -> list[str]:
    """Return the places of its state that a workflow declared."""
    return [path for (path,) in await link.fetch(_DECLARED, workflow_id)]


async def all_declared(link: Link) -> list[tuple[str, str, str]]:
    """Return all places that workflows declared: (workflow, place, first execution's id)."""
    found = await link.fetch(_ALL_DECLARED)
    return [(workflow_id, path, since) for workflow_id, path, since in found]


async def declare(link: Link, places: Sequence[tuple[str, str]], since: str) -> None:
    """Note which places of states are indexed from now on; what was noted before stays."""
    await link.fetch(_DECLARE, *queries.columns(places, 2), since)


async def workflow_ids(link: Link) -> list[str]:
    """Return the ids of the workflows that have executions."""
    return [id_ for (id_,) in await link.fetch(_WORKFLOW_IDS)]
