"""Rows of the tables as records."""

from __future__ import annotations

from typing import Any

from polos.core.model import (
    Event,
    Execution,
    InboxItem,
    Row,
    StateEntry,
    Status,
    Wait,
    WorkerRecord,
)

EXECUTION_COLUMNS = (
    "id, root_id, workflow_id, root_workflow_id, status, attempt, worker_id, wake_at, payload, "
    "payload_type, result, result_type, error, blocked_reason, parent_id, parent_key, awaited, "
    "session_id, user_id, deployment_id, queue_name, concurrency_key, batch_id, "
    "idempotency_key, run_timeout_seconds, retry_count, crashes, created_at, started_at, "
    "completed_at, cancel_requested_at, cancel_delivered_at, code_version, tags, forked_from, "
    "generation, state_key"
)
STEP_COLUMNS = (
    "seq, kind, key, asked, call, turn, ok, body, type, pinned, change, state_version, due_at, "
    "info, attempts, started_at, completed_at"
)
STATE_COLUMNS = "version, step_key, at, body, jump, attempt, origin, schema_version"
KEYED_COLUMNS = "workflow_id, state_key, version, state, schema_version, updated_at, execution_id"
WORKER_COLUMNS = (
    "id, host, pid, started_at, stopped_at, takes_queue, workflows, deployment_id, versions"
)
WAIT_COLUMNS = "root_id, execution_id, seq, kind, key, at, topic, filter, body, due_at"


def execution(values: tuple[Any, ...]) -> Execution:
    """Read a row of `EXECUTION_COLUMNS`."""
    record = Execution(*values)
    record.status = Status(record.status)
    record.awaited = bool(record.awaited)
    return record


def step(values: tuple[Any, ...]) -> Row:
    """Read a row of `STEP_COLUMNS`."""
    row = Row(*values)
    row.ok = None if row.ok is None else bool(row.ok)
    row.pinned = bool(row.pinned)
    return row


def state(values: tuple[Any, ...]) -> StateEntry:
    """Read a row of `STATE_COLUMNS`."""
    return StateEntry(*values)


def inbox_item(values: tuple[Any, ...]) -> InboxItem:
    """Read an inbox row joined with the child that it tells of."""
    item = InboxItem(*values)
    item.status = Status(item.status)
    return item


def wait(values: tuple[Any, ...]) -> Wait:
    """Read a row of `WAIT_COLUMNS`."""
    return Wait(*values)


def worker(values: tuple[Any, ...]) -> WorkerRecord:
    """Read a row of `WORKER_COLUMNS`."""
    record = WorkerRecord(*values)
    record.takes_queue = bool(record.takes_queue)
    return record


def event(values: tuple[Any, ...]) -> Event:
    """Read a row of `values.EVENT_COLUMNS`."""
    topic, seq, id_, type_, data, root_id, execution_id, at = values
    return Event(topic, id_, type_, data, at, seq, root_id, execution_id)
