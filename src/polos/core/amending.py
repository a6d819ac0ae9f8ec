"""Changes of state from outside: what they are, when they can be made, and their row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polos.core import delta
from polos.core.delta import Fields
from polos.core.model import TERMINAL, Change, Execution, Kind, Row, StateEntry, Status
from polos.core.sealed import references
from polos.errors import ConflictError


@dataclass(slots=True)
class Amendment:
    """A change of state from outside, for an execution that nobody runs."""

    expected: int
    """The version that it builds on; -1 if there is no state yet."""
    entry: StateEntry
    change: str
    """JSON of the operations, for code that replays (see `core.merge`)."""


def check_amendable(execution: Execution, expected: int, version: int) -> None:
    """Raise `ConflictError` if a change from outside cannot build on version `expected`."""
    who = f"execution {execution.id!r}"
    if execution.status in TERMINAL:
        raise ConflictError(
            f"{who} is {execution.status}; only the state of one that has not ended can be patched"
        )
    owned = execution.status is Status.QUEUED and execution.wake_at is None
    if execution.status is Status.RUNNING or (owned and execution.attempt > 0):
        raise ConflictError(
            f"{who} is running, its code has the state in hand; patch it while it waits or is "
            "queued, or cancel it"
        )
    if execution.state_key is not None and owned:
        raise ConflictError(
            f"{who} waits for others with the state key {execution.state_key!r}, and begins with "
            "what they leave; patch it when it has begun"
        )
    if version != expected:
        raise ConflictError(
            f"the state of {who} has version {version}, not {expected}: it was changed meanwhile; "
            "read it again, and patch that"
        )


def amending_row(rows: Sequence[Row], amendment: Amendment) -> Row:
    """Return the journal row of a change from outside, behind the rows that are there."""
    handed = [row.turn for row in rows if row.turn is not None]
    entry = amendment.entry
    return Row(
        max((row.seq for row in rows), default=0) + 1,
        Kind.PATCH_STATE,
        None,
        len(handed),
        turn=max(handed, default=0) + 1,
        ok=True,
        change=amendment.change,
        state_version=entry.version,
        info=entry.origin,
        started_at=entry.at,
        completed_at=entry.at,
    )


def amended(key: tuple[str, str], row: Row, entry: StateEntry, fields: Fields) -> Change:
    """Return a change from outside, which leaves a state of `fields`, as its owner would make it.

    `key` is the execution's (root, id).
    """
    entry.refs = sorted(references(delta.document(fields)))
    change = Change.of_state(key, entry)
    change.rows = [row]
    return change
