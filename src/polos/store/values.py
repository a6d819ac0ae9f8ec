"""Records as rows: the columns of each table, in the order in which both databases write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from polos.core import suspension
from polos.core.indexed import IndexEntry
from polos.core.model import Change, Event, Kind, Row, Start, StateEntry, Wait

STEP_COLUMNS = (
    "root_id, execution_id, seq, kind, key, asked, call, turn, ok, body, type, pinned, change, "
    "state_version, due_at, info, attempts, started_at, completed_at"
)
STATE_COLUMNS = (
    "root_id, execution_id, version, step_key, at, body, jump, attempt, origin, schema_version"
)
INDEX_COLUMNS = "root_id, execution_id, path, workflow_id, value, number"
WAIT_COLUMNS = "root_id, execution_id, seq, kind, key, topic, filter, body, due_at, at"
EVENT_COLUMNS = "topic, seq, id, type, data, root_id, execution_id, at"
START_COLUMNS = (
    "root_id, id, workflow_id, root_workflow_id, attempt, worker_id, wake_at, payload, "
    "payload_type, parent_id, parent_key, awaited, session_id, user_id, deployment_id, "
    "queue_name, concurrency_key, batch_id, idempotency_key, run_timeout_seconds, code_version, "
    "tags, forked_from, state_key, created_at"
)


OWN_TABLES = frozenset(
    {
        *("execution", "step", "state", "inbox", "wait", "worker", "topic", "event"),
        *("event_trigger", "field_index", "indexed_field", "key_queue", "keyed_state", "cut_step"),
        *("blob", "blob_chunk", "blob_ref"),
    }
)
"""The tables that both stores have, and nobody else writes."""


def step(change: Change, row: Row) -> tuple[Any, ...]:
    """Return a journal row as `STEP_COLUMNS`."""
    return (
        change.root_id,
        change.execution_id,
        row.seq,
        row.kind,
        row.key,
        row.asked,
        row.call,
        row.turn,
        row.ok,
        row.body,
        row.type,
        row.pinned,
        row.change,
        row.state_version,
        row.due_at,
        row.info,
        row.attempts,
        row.started_at,
        row.completed_at,
    )


def state(root_id: str, execution_id: str, entry: StateEntry) -> tuple[Any, ...]:
    """Return a state entry as `STATE_COLUMNS`."""
    return (
        root_id,
        execution_id,
        entry.version,
        entry.step_key,
        entry.at,
        entry.body,
        entry.jump,
        entry.attempt,
        entry.origin,
        entry.schema_version,
    )


def wait(wait: Wait) -> tuple[Any, ...]:
    """Return what an open row waits for as `WAIT_COLUMNS`."""
    return (
        wait.root_id,
        wait.execution_id,
        wait.seq,
        wait.kind,
        wait.key,
        wait.topic,
        wait.filter,
        wait.body,
        wait.due_at,
        wait.at,
    )


def index(root_id: str, execution_id: str, entry: IndexEntry) -> tuple[Any, ...]:
    """Return what an execution is found by as `INDEX_COLUMNS`."""
    return (root_id, execution_id, entry.path, entry.workflow_id, entry.value, entry.number)


def event(event: Event) -> tuple[Any, ...]:
    """Return an event as `EVENT_COLUMNS`."""
    return (
        event.topic,
        event.seq,
        event.id,
        event.type,
        event.data,
        event.root_id,
        event.execution_id,
        event.at,
    )


def asked_for(waits: Iterable[Wait]) -> list[tuple[str, str, str]]:
    """Return (root, execution, item) of answers that may have come before these waits."""
    return [
        (wait.root_id, wait.execution_id, suspension.early_id(wait.key))
        for wait in waits
        if wait.kind == Kind.SUSPEND
    ]


def start(start: Start) -> tuple[Any, ...]:
    """Return a new execution as `START_COLUMNS`."""
    return (
        start.root_id,
        start.id,
        start.workflow_id,
        start.root_workflow_id,
        start.attempt,
        start.worker_id,
        start.created_at if start.attempt == 0 and not start.is_behind else None,
        start.payload,
        start.payload_type,
        start.parent_id,
        start.parent_key,
        start.awaited,
        start.session_id,
        start.user_id,
        start.deployment_id,
        start.queue_name,
        start.concurrency_key,
        start.batch_id,
        start.idempotency_key,
        start.run_timeout_seconds,
        start.code_version,
        start.tags,
        start.forked_from,
        None if start.keyed is None else start.keyed.key,
        start.created_at,
    )
