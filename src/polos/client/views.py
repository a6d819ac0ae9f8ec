"""Records as the dicts that users read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from polos.core import delta, failure, sealed, secret
from polos.core.forms import FORM
from polos.core.model import (
    HIDDEN_KINDS,
    TERMINAL,
    Execution,
    Kind,
    Row,
    StateEntry,
    Status,
    WorkerSeen,
)
from polos.core.suspension import Suspension

ENCRYPTED = "<encrypted>"
"""What a value is shown as whose key this process does not have."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BODIES = (Kind.RUN, Kind.RESUME, Kind.STREAM, Kind.COMPENSATE, Kind.TRANSACTION)
"""Kinds of rows that do something while they are open."""


def moment(micros: int | None) -> str | None:
    """Return a moment as ISO 8601 text in UTC."""
    if micros is None:
        return None
    return (EPOCH + timedelta(microseconds=micros)).isoformat()


def shown(text: str | None) -> Any:
    """Return a recorded value as users see it: secrets masked, and what nobody has a key for."""
    if text is None:
        return None
    if sealed.is_sealed(text):
        return ENCRYPTED
    value = json.loads(text)
    return secret.mask(value) if secret.holds(text) else value


def error(text: str | None) -> str | None:
    """Return the message of a stored failure."""
    return ENCRYPTED if sealed.is_sealed(text) else failure.text(text)


def state(entries: list[StateEntry]) -> tuple[dict[str, Any] | None, int | None]:
    """Return the state that a snapshot and its deltas make, and its version."""
    if not entries:
        return None, None
    if sealed.is_sealed(entries[0].jump or entries[0].body):
        return {ENCRYPTED: None}, entries[-1].version
    fields = delta.replay(entry.jump or entry.body for entry in entries)
    return shown(delta.document(fields)), entries[-1].version


def execution(record: Execution, entries: list[StateEntry]) -> dict[str, Any]:
    """Return an execution as `get_execution` shows it: the reference's keys and some more."""
    current, version = state(entries)
    schema = None if sealed.is_sealed(record.result_type) else record.result_type
    reason = ENCRYPTED if sealed.is_sealed(record.blocked_reason) else record.blocked_reason
    return {
        "id": record.id,
        "workflow_id": record.workflow_id,
        "status": str(record.status),
        "payload": shown(record.payload),
        "result": shown(record.result),
        "error": error(record.error),
        "not_compensated": failure.not_compensated(record.error),
        "state": current,
        "state_version": version,
        "attempt": record.attempt,
        "generation": record.generation,
        "blocked_reason": reason,
        "created_at": moment(record.created_at),
        "started_at": moment(record.started_at),
        "completed_at": moment(record.completed_at),
        "wake_at": moment(record.wake_at) if record.status is Status.WAITING else None,
        "deployment_id": record.deployment_id,
        "code_version": record.code_version,
        "assigned_to_worker": record.worker_id if record.status is Status.RUNNING else None,
        "parent_execution_id": record.parent_id,
        "root_execution_id": record.root_id,
        "root_workflow_id": record.root_workflow_id,
        "retry_count": record.retry_count,
        "step_key": record.parent_key,
        "queue_name": record.queue_name,
        "concurrency_key": record.concurrency_key,
        "batch_id": record.batch_id,
        "session_id": record.session_id,
        "user_id": record.user_id,
        "idempotency_key": record.idempotency_key,
        "output_schema_name": schema,
        "cancel_requested_at": moment(record.cancel_requested_at),
        "cancelled_at": moment(record.completed_at) if record.status is Status.CANCELLED else None,
        "run_timeout_seconds": record.run_timeout_seconds,
        "tags": {} if record.tags is None else json.loads(record.tags),
        "forked_from": None if record.forked_from is None else json.loads(record.forked_from),
    }


def steps(rows: list[Row], record: Execution) -> list[dict[str, Any]]:
    """Return the steps in commit order: recorded ones by turn, open ones last."""
    shown = [r for r in rows if r.kind not in HIDDEN_KINDS]
    shown.sort(key=lambda r: (r.turn is None, r.turn or 0, r.seq))
    return [_step(r, ended=record.status in TERMINAL) for r in shown]


def _step(row: Row, *, ended: bool) -> dict[str, Any]:
    if row.ok is None and ended:
        status = "cancelled"
    elif row.ok is None:
        status = "running" if row.kind in _BODIES and row.due_at is None else "waiting"
    else:
        status = "completed" if row.ok else "failed"
    value = shown(row.body) if row.ok else None
    return {
        "step_key": row.key,
        "kind": str(row.kind),
        "status": status,
        "attempts": row.attempts,
        "output": value,
        "error": error(row.body) if row.ok is False else None,
        "started_at": moment(row.started_at),
        "completed_at": moment(row.completed_at),
        "due_at": moment(row.due_at),
    }


def suspension(found: Suspension) -> dict[str, Any]:
    """Return an open suspension as `list_suspensions` shows it."""
    wait = found.wait
    data = shown(wait.body)
    return {
        "execution_id": wait.execution_id,
        "root_execution_id": wait.root_id,
        "workflow_id": found.workflow_id,
        "root_workflow_id": found.root_workflow_id,
        "step_key": wait.key,
        "data": data,
        "form": cast("dict[str, Any]", data).get(FORM) if isinstance(data, dict) else None,
        "suspended_at": moment(wait.at),
        "due_at": moment(wait.due_at),
    }


def worker(seen: WorkerSeen) -> dict[str, Any]:
    """Return a worker as `list_workers` shows it."""
    record = seen.record
    status = "live" if seen.held else "lost"
    return {
        "id": record.id,
        "status": status if record.stopped_at is None else "stopped",
        "host": record.host,
        "pid": record.pid,
        "started_at": moment(record.started_at),
        "stopped_at": moment(record.stopped_at),
        "last_beat_at": moment(seen.beat_at),
        "deployment_id": record.deployment_id,
        "takes_queue": record.takes_queue,
        "workflows": json.loads(record.workflows),
        "running": seen.running,
        "queued": seen.queued,
    }
