"""The rules of an execution's life: what a cancel, a retry or a crash does in which status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from polos.core import failure
from polos.core.model import TERMINAL, Execution, Failure, Row, Status

__all__ = [
    "CANCELLED_ERROR",
    "TERMINAL",
    "crash_loop_reason",
    "cut",
    "on_cancel",
    "timeout_failure",
]

CANCELLED_ERROR = failure.dump(Failure("ExecutionCancelledError", "Execution cancelled"))


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


def cut(rows: Sequence[Row], blamed: str | None) -> list[int]:
    """Return the rows (by seq) that a failed execution must forget to go on from its failed step.

    `blamed` is the key of that step: these are its row and what was asked for after it had been
    handed over, for that was its consequence. If no step made it fail (its own code did), nothing
    is forgotten but cancellations: the code runs again behind its recorded steps.
    """
    gone = {row.seq for row in rows if row.kind == "cancel"}
    failed = next((r for r in rows if blamed and r.key == blamed and r.ok is False), None)
    if failed is None or failed.turn is None:
        return sorted(gone)
    turn = failed.turn
    handed = sum(1 for r in rows if r.turn is not None and r.turn <= turn)
    gone |= {r.seq for r in rows if r.asked >= handed}
    gone.add(failed.seq)
    return sorted(gone)
