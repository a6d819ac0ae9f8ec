"""The rules of an execution's life: what a cancel, a retry or a crash does in which status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from polos.core import failure
from polos.core.model import TERMINAL, Execution, Failure, Kind, Row, Status
from polos.errors import ConflictError

__all__ = [
    "MISFIT",
    "REMOVING",
    "TERMINAL",
    "TO_UNDO",
    "UNKNOWN_OUTCOME",
    "cancelled_failure",
    "crash_loop_reason",
    "cut",
    "left_undone",
    "not_undone",
    "on_cancel",
    "on_retry",
    "timeout_failure",
    "unknown_outcome",
]

TO_UNDO = "compensate"
"""What the row of a step that is to be undone, should it come to that, says in `info`."""
UNKNOWN_OUTCOME = "unknown outcome of step "
"""How the reason begins why an execution waits for somebody who knows what became of a step."""
REMOVING = "being removed: older than the retention of its workflow"
"""Marks the root of a tree that is too large to be removed in one transaction."""
MISFIT = "its state cannot be loaded"
"""How the reason begins for which an execution is parked whose state the code does not take."""


def cancelled_failure() -> Failure:
    """Return the failure of a cancelled execution."""
    return Failure("ExecutionCancelledError", "Execution cancelled")


def left_undone(failed: Failure, step_keys: Sequence[str]) -> Failure:
    """Return a failure that also names the steps whose effect was not undone."""
    if step_keys:
        failed.message += f"; not compensated: {', '.join(map(repr, step_keys))}"
        failed.details = {**failed.details, "not_compensated": list(step_keys)}
    return failed


def not_undone(rows: Sequence[Row]) -> list[str]:
    """Return the keys of the steps whose effect stands, or may stand, and was to be undone.

    `rows` are those that say they are to be undone, and those of the undoing.
    """
    undone = {row.key for row in rows if row.kind == Kind.COMPENSATE and row.ok}
    return [
        row.key
        for row in rows
        if row.kind == Kind.RUN
        and row.info == TO_UNDO
        and row.ok is not False
        and row.key is not None
        and f"compensate.{row.key}" not in undone
    ]


def crash_loop_reason(crashes: int) -> str:
    """Return why an execution that keeps killing its worker is parked."""
    return (
        f"{crashes} attempts in a row ended with the death of their worker without a new step; "
        "mend the cause, then release it with retry"
    )


def unknown_outcome(step_key: str, reason: str) -> str:
    """Return why an execution is parked whose step may have taken effect, or not."""
    told = f": {reason}" if reason else ""
    return f"{UNKNOWN_OUTCOME}{step_key!r}{told}; find out, then let retry ask its reconcile again"


def timeout_failure(seconds: float) -> Failure:
    """Return the failure of an execution that outlived its `run_timeout_seconds`."""
    return Failure("WorkflowTimeoutError", f"Execution timed out after {seconds:g} seconds")


def on_cancel(execution: Execution) -> Literal["cancelled", "queued", "requested"]:
    """Say what a cancel request does to an execution that has not ended.

    One that never ran, or that nobody can run (it is blocked), ends at once; one that waits is
    queued so that its code can clean up, also if what it waits for is the outcome of a step; of one
    that runs its owner is told.
    """
    blocked = execution.blocked_reason
    if execution.attempt == 0 or (blocked is not None and not blocked.startswith(UNKNOWN_OUTCOME)):
        return "cancelled"
    if execution.status is Status.WAITING:
        return "queued"
    return "requested"


def on_retry(execution_id: str, rows: Sequence[Row], error: str | None) -> list[int]:
    """Return the rows (by seq) that a retry removes; `error` is the failure as stored.

    What was compensated cannot go on: its steps were undone. A retry of it only tries again to undo
    what is left. ConflictError if there is nothing of the kind.
    """
    if not any(row.kind == Kind.COMPENSATE for row in rows):
        return cut(rows, [] if error is None else failure.to_blame(failure.load(error)))
    failed = [row.seq for row in rows if row.kind == Kind.COMPENSATE and row.ok is False]
    if not failed:
        raise ConflictError(
            f"execution {execution_id!r} was compensated: its steps were undone; start a new one"
        )
    if any(row.kind == Kind.CANCEL for row in rows):
        raise ConflictError(
            f"execution {execution_id!r} ran out of time while its steps were undone; undo the "
            "rest by hand (get_execution names it as not_compensated), and start a new one"
        )
    return failed


def cut(rows: Sequence[Row], blamed: Sequence[str]) -> list[int]:
    """Return the rows (by seq) that a failed execution must forget to go on from its failed step.

    `blamed` has the keys of such steps: these are their rows, and what was asked for after the
    first of them had been handed over, for that was its consequence. If no step made it fail (its
    own code did), nothing is forgotten but cancellations: the code runs again behind its recorded
    steps.
    """
    gone = {row.seq for row in rows if row.kind == "cancel"}
    failed = [r for r in rows if r.key in blamed and r.ok is False and r.turn is not None]
    if not failed:
        return sorted(gone)
    turn = min(r.turn or 0 for r in failed)
    handed = sum(1 for r in rows if r.turn is not None and r.turn <= turn)
    gone |= {r.seq for r in rows if r.asked >= handed}
    # Also failures beside it, which came after it: they are steps that failed as well.
    gone |= {r.seq for r in rows if r.ok is False and r.turn is not None and r.turn >= turn}
    return sorted(gone)
