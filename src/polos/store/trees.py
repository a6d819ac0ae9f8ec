"""Rows as they are stored, to be carried to another store or rewritten under another key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from polos.core.keys import Key
from polos.core.model import TERMINAL
from polos.errors import ImportFileError

TABLES = (*("execution", "step", "state", "inbox", "wait", "cut_step", "field_index", "blob_ref"),)
"""The tables of a tree, in the order in which they are written."""
BOOLEANS = ("awaited", "ok", "pinned")


class Rewrite(NamedTuple):
    """One value that is to be replaced."""

    key: Sequence[Any]
    column: str
    old: Any
    new: Any


def statement(
    table: str, columns: Sequence[str], place: Callable[[int], str], prefix: str = ""
) -> str:
    """Return the INSERT of rows with these columns; `place` writes the marks of arguments."""
    names = ", ".join(columns)
    marks = ", ".join(place(number + 1) for number in range(len(columns)))
    return f"INSERT INTO {prefix}{table} ({names}) VALUES ({marks})"


def columns_of(rows: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[str]:
    """Return the columns that rows from elsewhere have here: one unknown here is a mistake."""
    for row in rows:
        for name, value in row.items():
            if name not in known and value is not None:
                raise ImportFileError(
                    f"the file has {name!r} of an execution, which this release does not know: "
                    "upgrade the polos package; nothing of it was stored"
                )
    return [name for name in known if any(name in row for row in rows)]


def holders(executions: Sequence[Mapping[str, Any]]) -> list[tuple[Key, tuple[str, str]]]:
    """Return the state keys of executions that have not ended, with the (root, id) of each."""
    return sorted(
        ((row["workflow_id"], row["state_key"]), (row["root_id"], row["id"]))
        for row in executions
        if row.get("state_key") is not None and row["status"] not in TERMINAL
    )


def typed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with truth values where a database may have numbers."""
    for name in BOOLEANS:
        if row.get(name) is not None:
            row[name] = bool(row[name])
    return row
