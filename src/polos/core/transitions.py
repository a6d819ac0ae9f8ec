"""The rules of an execution's life: what a cancel, a retry or a crash does in which status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from polos.core import failure
from polos.core.model import TERMINAL, Execution, Failure, Row, Status

__all__ = [
    "CANCELLED_ERROR",
    "MISFIT",
    "REMOVING",
    "TERMINAL",
    "crash_loop_reason",
    "cut",
    "on_cancel",
    "timeout_failure",
]

CANCELLED_ERROR = failure.dump(Failure("ExecutionCancelledError", "Execution cancelled"))
REMOVING = "being removed: older than the retention of its workflow"
"""Marks the root of a tree that is too large to be removed in one transaction."""
MISFIT = "its state cannot be loaded"
"""How the reason begins for which an execution is parked whose state the code does not take."""


def crash_loop_reason(crashes: int) -> str:
    """Return why an execution that keeps killing its worker is parked."""
    return (
        f"{crashes} attempts in a row ended with the death of their worker without a new step; "
        "mend the cause, then release it with retry"
    )


def timeout_failure(seconds: float) -> Failure:
    """Return the failure of an execution that outlived its `run_timeout_seconds`."""
    return Failure("WorkflowTimeoutError", f"Execution timed out after {seconds:g} seconds")


def on_cancel(execution: Execution) -> Literal["cancelled", "queued", "requested"]:
    """Say what a cancel request does to an execution that has not ended.

    One that never ran, or that nobody can run (it is blocked), ends at once; one that waits is
    queued so that its code can clean up; of one that runs its owner is told.
    """
    if execution.attempt == 0 or execution.blocked_reason is not None:
        return "cancelled"
    if execution.status is Status.WAITING:
        return "queued"
    return "requested"


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
