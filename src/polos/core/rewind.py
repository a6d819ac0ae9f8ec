"""The rules of going back: what of a journal stays if it is to end with one of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polos.core import delta
from polos.core.model import HIDDEN_KINDS, Execution, Kind, Row, StateEntry, Status
from polos.core.transitions import REMOVING
from polos.errors import ConflictError, StepNotFoundError

EFFECTS = frozenset(
    {
        Kind.RUN,
        Kind.INVOKE,
        Kind.INVOKE_AND_WAIT,
        Kind.BATCH_INVOKE,
        Kind.BATCH_INVOKE_AND_WAIT,
        Kind.RESUME,
        Kind.PUBLISH,
        Kind.STREAM,
        Kind.TRANSACTION,
        Kind.COMPENSATE,
    }
)
"""Steps that act on the world outside, and will again if they run anew."""


@dataclass(slots=True)
class Cut:
    """A journal that ends with a step: the rows that stay, and those that do not."""

    kept: list[Row]
    gone: list[Row]
    state_version: int
    """The state as of the last row that stays."""


@dataclass(slots=True)
class Rewound:
    """What a reset did, or would do."""

    cut: Cut
    number: int
    """How many resets there were, this one included."""
    children: dict[str, str]
    """Open children that the rows which are gone had started: what became of each."""


def cut_behind(execution: Execution, rows: Sequence[Row], step_key: str) -> Cut:
    """Cut a journal behind a recorded step.

    What was handed to the code with it, or before, stays: steps beside it in concurrent code too.
    Open rows go: they begin anew. Raises `StepNotFoundError`, or `ConflictError` if the step is
    still open, or if a cancellation had been delivered by then.
    """
    step = next((r for r in rows if r.key == step_key and r.kind not in HIDDEN_KINDS), None)
    if step is None:
        raise StepNotFoundError(execution.id, step_key)
    if step.turn is None:
        raise ConflictError(
            f"step {step_key!r} of execution {execution.id!r} is still open; name a step before "
            "it, or wait until it is recorded"
        )
    turn = step.turn
    handed = sum(1 for r in rows if r.turn is not None and r.turn <= turn)
    kept: list[Row] = []
    gone: list[Row] = []
    for row in rows:
        # Rows that are handed to nobody (a change of state, a patch) tell by when they were made.
        stays = row.turn <= turn if row.turn is not None else bool(row.ok) and row.asked < handed
        (kept if stays else gone).append(row)
    if any(row.kind == Kind.CANCEL for row in kept):
        raise ConflictError(
            f"step {step_key!r} of execution {execution.id!r} was recorded after its cancellation; "
            "name a step before that"
        )
    return Cut(kept, gone, max(row.state_version for row in kept))


def back(
    latest: Sequence[StateEntry], wanted: Sequence[StateEntry], step_key: str, now: int
) -> tuple[StateEntry | None, delta.Fields]:
    """Return the entry that makes an earlier state the latest again, or None, and that state."""
    if not latest or not wanted:
        return None, {}
    fields = delta.replay(each.jump or each.body for each in wanted)
    body = delta.diff(delta.replay(each.jump or each.body for each in latest), fields)
    version = wanted[-1].schema_version
    if version != latest[-1].schema_version:
        body = delta.document(fields)  # a delta is read in the terms of the entry before it
    elif body is None:
        return None, fields
    elif len(body) > delta.size(fields):
        body = delta.document(fields)
    entry = StateEntry(latest[-1].version + 1, step_key, now, body, schema_version=version)
    return entry, fields


def last_of(rows: Sequence[Row]) -> Row:
    """Return the row that was handed over last."""
    return max(rows, key=lambda row: (row.turn or 0, row.seq))


def demand_resettable(execution: Execution) -> None:
    """Raise `ConflictError` unless nobody runs the execution, nor is about to end or remove it."""
    why = None
    if execution.blocked_reason == REMOVING:
        why = f"{REMOVING}; start it anew"
    elif execution.completed_at is None and execution.cancel_requested_at is not None:
        why = "asked to cancel; reset it when it has ended"
    elif execution.status is Status.RUNNING or (
        execution.status is Status.QUEUED and execution.wake_at is None
    ):
        why = "running; wait until it waits or has ended, or cancel it first"
    if why is not None:
        raise ConflictError(f"execution {execution.id!r} is {why}")
