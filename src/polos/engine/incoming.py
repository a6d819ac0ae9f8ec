"""What the rows of an imported file have to be like: one that no store wrote is refused whole.

A store is read as its own writing, without doubt: one row that is no such would make every list of
executions fail. So each column is looked at for what the code that reads it takes for granted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from polos.core import delta
from polos.core.model import Status
from polos.errors import ImportFileError

Rows = Mapping[str, Sequence[Mapping[str, Any]]]

_LAST_MOMENT = 253_402_300_799_999_999
"""The end of the year 9999, in microseconds."""
_COUNT_MAX = 1 << 62
_STEP_TEXTS = ("body", "type", "change", "info")
_STEP_COUNTS = ("seq", "asked", "turn", "state_version", "attempts")
_STEP_MOMENTS = ("started_at", "completed_at", "due_at")
_TEXTS = {
    "execution": (
        *("payload", "payload_type", "result", "result_type", "error", "tags", "forked_from"),
    ),
    "step": _STEP_TEXTS,
    "cut_step": _STEP_TEXTS,
    "state": ("body", "jump", "origin"),
    "inbox": ("body",),
    "wait": ("filter", "body"),
}
"""Columns of JSON."""
_COUNTS = {
    "execution": ("attempt", "retry_count", "crashes", "crash_mark", "generation"),
    "step": _STEP_COUNTS,
    "cut_step": ("cut", *_STEP_COUNTS),
    "state": ("version", "attempt", "schema_version"),
    "wait": ("seq",),
}
_MOMENTS = {
    "execution": (
        *("created_at", "started_at", "completed_at", "wake_at"),
        *("cancel_requested_at", "cancel_delivered_at"),
    ),
    "step": _STEP_MOMENTS,
    "cut_step": ("cut_at", *_STEP_MOMENTS),
    "state": ("at",),
    "inbox": ("at",),
    "wait": ("at", "due_at"),
}
_NUMBERS = {"execution": ("run_timeout_seconds",), "field_index": ("number",)}
_TRUTHS = {"execution": ("awaited",), "step": ("ok", "pinned"), "cut_step": ("ok", "pinned")}
_STATUSES = {"execution": ("status",)}
_SCALARS = (str, int, float, bool, type(None))
_NEEDED = {
    "execution": ("id", "root_workflow_id", "workflow_id", "status", "attempt", "created_at"),
    "step": ("seq", "kind", "asked", "state_version", "attempts", "started_at"),
    "state": ("version", "at", "body"),
    "inbox": ("id", "kind", "ref", "at"),
    "wait": ("seq", "kind", "key", "at"),
}


def check(manifest: Mapping[str, Any], tables: Rows, path: Path) -> tuple[str, str]:
    """Return root and execution of a file whose rows are whole and belong together."""

    def refused(why: str) -> ImportFileError:
        return ImportFileError(f"{path}: {why}; nothing of it was stored")

    for table, rows in tables.items():
        for row in rows:
            fault = _fault(table, row)
            if fault is not None:
                raise refused(f"{table} has a row whose {fault}")
    root_id, execution_id = manifest.get("root_id"), manifest.get("execution_id")
    known = {row["id"] for row in tables["execution"]}
    if root_id not in known or execution_id not in known:
        raise refused("the execution that it is of is not in it")
    for table, rows in tables.items():
        for row in rows:
            if row.get("root_id") != root_id:
                raise refused(f"{table} has a row of another tree")
            if table != "execution" and row.get("execution_id") not in known:
                raise refused(f"{table} has a row of an execution that is not in it")
    _check_states(tables, refused)
    return cast("str", root_id), cast("str", execution_id)


def _fault(table: str, row: Mapping[str, Any]) -> str | None:
    """Say what no store would have written in a row; None for nothing."""
    missing = (name for name in _NEEDED.get(table, ()) if row.get(name) is None)
    strange = (name for name, value in row.items() if not isinstance(value, _SCALARS))
    for why, names in (
        ("is missing", missing),
        ("is no plain value", strange),
        ("is no number of its kind", _wrong(row, _COUNTS.get(table, ()), _is_count)),
        ("is no moment", _wrong(row, _MOMENTS.get(table, ()), _is_moment)),
        ("is no number", _wrong(row, _NUMBERS.get(table, ()), _is_number)),
        ("is neither true nor false", _wrong(row, _TRUTHS.get(table, ()), _is_truth)),
        ("is not JSON", _wrong(row, _TEXTS.get(table, ()), _is_json)),
        ("is unknown", _wrong(row, _STATUSES.get(table, ()), set(Status).__contains__)),
    ):
        name = next(iter(names), None)
        if name is not None:
            return f"{name} {why}"
    return None


def _wrong(
    row: Mapping[str, Any], names: Iterable[str], fits: Callable[[Any], bool]
) -> Iterator[str]:
    return (name for name in names if row.get(name) is not None and not fits(row[name]))


def _is_count(value: Any) -> bool:
    return type(value) is int and -1 <= value <= _COUNT_MAX


def _is_moment(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LAST_MOMENT


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_truth(value: Any) -> bool:
    return value in (True, False)


def _is_json(text: Any) -> bool:
    try:
        json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _check_states(tables: Rows, refused: Any) -> None:
    bodies: dict[str, list[str]] = {}
    for row in sorted(tables.get("state", ()), key=lambda row: row["version"]):
        bodies.setdefault(row["execution_id"], []).append(row.get("jump") or row["body"])
    for id_, texts in bodies.items():
        if any('"$s' in text for text in texts):
            continue  # encrypted, or apart
        try:
            delta.replay(texts)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise refused(f"the states of execution {id_!r} do not follow one another") from error
