"""What executions are found by: the entries of the index, as an execution's state changes."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from polos.core import where
from polos.core.delta import Fields
from polos.core.indexed import IndexEntry
from polos.store import values
from polos.store.sqlite import finding

_INDEX = (
    f"INSERT INTO field_index ({values.INDEX_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (root_id, execution_id, path) DO UPDATE SET value = excluded.value, "
    "number = excluded.number"
)
_UNINDEX = "DELETE FROM field_index WHERE root_id = ? AND execution_id = ? AND path = ?"


def write(connection: apsw.Connection, key: tuple[str, str], entries: Sequence[IndexEntry]) -> None:
    """Write what an execution, given by (root, id), is found by."""
    gone = [(*key, each.path) for each in entries if each.value is None]
    kept = [values.index(*key, each) for each in entries if each.value is not None]
    if gone:
        connection.executemany(_UNINDEX, gone)
    if kept:
        connection.executemany(_INDEX, kept)


def of_state(connection: apsw.Connection, workflow_id: str, fields: Fields) -> list[IndexEntry]:
    """Return what the index holds of a state, at the places that its workflow declared."""
    return where.entries(workflow_id, finding.declared(connection, workflow_id), fields)
