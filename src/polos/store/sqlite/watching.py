"""Where the recorded states of executions stand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from polos.core.watching import Head
from polos.store.sqlite.queries import OPEN

# Who waits for others with its state key has no state yet: it begins with what they leave.
_BEHIND = "e.state_key IS NOT NULL AND e.status = 'queued' AND e.wake_at IS NULL AND e.attempt = 0"
_HEAD = (
    f"SELECT e.id, e.root_id, e.workflow_id, CASE WHEN {_BEHIND} THEN -1 ELSE "
    "coalesce((SELECT max(s.version) FROM state s WHERE s.root_id = e.root_id "
    "AND s.execution_id = e.id), -1) END, e.completed_at, e.created_at FROM execution e"
)
_HEADS = f"{_HEAD} WHERE e.id IN (SELECT value FROM json_each(?))"
_OF = "(?2 IS NULL OR +e.workflow_id = ?2)"
# Two ways, each by an index of its own, that of what is open as in `queries.OPEN`.
_CURRENT = f"{_HEAD} WHERE e.{OPEN} AND {_OF} UNION {_HEAD} WHERE e.id >= ?1 AND {_OF} ORDER BY 1"


def heads(connection: apsw.Connection, ids: Sequence[str]) -> list[Head]:
    """Read where the states of executions stand."""
    return _read(connection, _HEADS, (json.dumps(list(ids)),))


def current(connection: apsw.Connection, workflow_id: str | None, first_id: str) -> list[Head]:
    """Read where those stand that have not ended, and those from an id on, by id."""
    return _read(connection, _CURRENT, (first_id, workflow_id))


def _read(connection: apsw.Connection, statement: str, arguments: tuple[Any, ...]) -> list[Head]:
    found: list[Any] = connection.execute(statement, arguments).fetchall()
    return [Head(*each) for each in found]
