"""Finding executions by conditions, and the places that workflows declared to be found by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from polos.core.model import Execution, StateEntry
from polos.core.where import Query, Tally
from polos.store import rows
from polos.store.finding import Text, tallies, tally_text
from polos.store.protocol import VERSION_MAX
from polos.store.sqlite import queries

_DECLARED = "SELECT path FROM indexed_field WHERE workflow_id = ?"
_ALL_DECLARED = "SELECT workflow_id, path, since FROM indexed_field"
_DECLARE = (
    "INSERT INTO indexed_field (workflow_id, path, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
)
# One probe for each workflow, where DISTINCT would read every entry of the index.
_NEXT_WORKFLOW = (
    "SELECT workflow_id FROM execution WHERE workflow_id > ? ORDER BY workflow_id LIMIT 1"
)


class _Sqlite:
    cross_join = "CROSS JOIN"
    is_open = f"e.{queries.OPEN}"
    use_open = " INDEXED BY execution_open"
    use_in_error = " INDEXED BY execution_in_error"
    has_lateral = False
    by_bytes = ""
    position = "instr"

    def one(self, number: int, kind: str) -> str:
        return f"?{number}"

    def any_of(self, number: int, kind: str) -> str:
        return f"IN (SELECT value FROM json_each(?{number}))"

    def each_of(self, number: int, kind: str) -> str:
        return f"SELECT value FROM json_each(?{number})"

    def many(self, values: Sequence[Any]) -> Any:
        return json.dumps(list(values))


DIALECT = _Sqlite()


def find(connection: apsw.Connection, query: Query, limit: int) -> list[Execution]:
    """List executions, newest first."""
    text = Text(DIALECT, query)
    statement = text.find(limit).replace("{s}.", "")
    return [rows.execution(r) for r in connection.execute(statement, text.arguments)]


def floor(connection: apsw.Connection, query: Query, skip: int) -> str | None:
    """Return the id behind so many newest executions of the query's workflow."""
    text = Text(DIALECT, query)
    return _value(connection, text.floor(skip), text)


def count_entries(connection: apsw.Connection, query: Query, most: int) -> int:
    """Count what is looked up by the query's place, up to so many."""
    text = Text(DIALECT, query)
    return _value(connection, text.count_entries(most), text)


def count_values(connection: apsw.Connection, query: Query, most: int) -> int:
    """Count the values that are looked up at the query's place, up to so many."""
    text = Text(DIALECT, query)
    return _value(connection, text.count_values(most), text)


def _value(connection: apsw.Connection, statement: str, text: Text) -> Any:
    found: Any = connection.execute(statement.replace("{s}.", ""), text.arguments).fetchone()
    return None if found is None else found[0]


def tally(
    connection: apsw.Connection, query: Query, group: str | None, total: str | None
) -> list[Tally]:
    """Count executions, by a column or an indexed place."""
    statement, arguments = tally_text(DIALECT, query, group, total)
    found: list[Any] = connection.execute(statement.replace("{s}.", ""), arguments).fetchall()
    return tallies(found, group)


def latest_states(
    connection: apsw.Connection, keys: Sequence[tuple[str, str]]
) -> dict[str, list[StateEntry]]:
    """Read what the latest states of executions, given by (root, id), are made of."""
    return {key[1]: queries.states_up_to(connection, *key, VERSION_MAX) for key in keys}


def declared(connection: apsw.Connection, workflow_id: str) -> list[str]:
    """Return the places of its state that a workflow declared."""
    return [str(path) for (path,) in connection.execute(_DECLARED, (workflow_id,))]


def all_declared(connection: apsw.Connection) -> list[tuple[str, str, str]]:
    """Return all places that workflows declared: (workflow, place, first execution's id)."""
    found: list[Any] = connection.execute(_ALL_DECLARED).fetchall()
    return [(workflow_id, path, since) for workflow_id, path, since in found]


def declare(connection: apsw.Connection, places: Sequence[tuple[str, str]], since: str) -> None:
    """Note which places of states are indexed from now on; what was noted before stays."""
    connection.executemany(_DECLARE, [(*place, since) for place in places])


def workflow_ids(connection: apsw.Connection) -> list[str]:
    """Return the ids of the workflows that have executions."""
    found: list[str] = []
    while row := connection.execute(_NEXT_WORKFLOW, (found[-1] if found else "",)).fetchone():
        found.append(str(row[0]))
    return found
