"""Reads; each fetches all it needs and ends at once, so that no reader holds back a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from polos.core import versions
from polos.core.model import Execution, InboxItem, Row, StateEntry, WorkerRecord
from polos.core.upkeep import Need
from polos.store import rows

_EXECUTION = f"SELECT {rows.EXECUTION_COLUMNS} FROM execution WHERE id = ?"
_STEPS = f"SELECT {rows.STEP_COLUMNS} FROM step WHERE root_id = ? AND execution_id = ? ORDER BY seq"
_UNDOING = (
    f"SELECT {rows.STEP_COLUMNS} FROM step WHERE root_id = ? AND execution_id = ? "
    "AND (kind = 'compensate' OR info = 'compensate') ORDER BY seq"
)
_STATES = (
    f"SELECT {rows.STATE_COLUMNS} FROM state WHERE root_id = ? AND execution_id = ? "
    "ORDER BY version"
)
# A mark is a snapshot, or an entry with a jump; the condition is that of the index, to the letter.
_MARKS_DOWN = (
    "SELECT version, step_key, at, CASE WHEN jump IS NULL THEN body ELSE '' END, jump, attempt, "
    "origin, schema_version FROM state INDEXED BY state_marks WHERE root_id = ?1 "
    "AND execution_id = ?2 AND version <= ?3 AND (jump IS NOT NULL OR substr(body, 1, 1) = '{') "
    "ORDER BY version DESC"
)
_BETWEEN = (
    f"SELECT {rows.STATE_COLUMNS} FROM state WHERE root_id = ? AND execution_id = ? "
    "AND version > ? AND version <= ? ORDER BY version"
)
_VERSION_AT = (
    "SELECT version FROM state WHERE root_id = ? AND execution_id = ? AND at <= ? "
    "ORDER BY version DESC LIMIT 1"
)
_ORIGIN = (
    "SELECT origin FROM state WHERE root_id = ? AND execution_id = ? AND version <= ? "
    "AND origin IS NOT NULL ORDER BY version DESC LIMIT 1"
)
_INBOX = (
    "SELECT i.id, i.execution_id, i.kind, i.ref, coalesce(c.status, 'completed'), "
    "CASE WHEN c.id IS NULL THEN i.body WHEN c.status = 'completed' THEN c.result "
    "ELSE c.error END, c.result_type FROM inbox i LEFT JOIN execution c "
    "ON i.kind = 'child' AND c.root_id = i.root_id AND c.id = i.ref "
    "WHERE i.root_id = ? AND i.execution_id = ? ORDER BY i.at, i.id"
)
_LAST_SEQ = "SELECT seq FROM step WHERE root_id = ? AND execution_id = ? ORDER BY seq DESC LIMIT 1"
# The partial index `execution_open` serves a query only if it repeats its condition to the letter;
# `+workflow_id` keeps the planner from reading every finished execution of a workflow instead.
OPEN = "status IN ('queued', 'running', 'waiting')"
_LIVE = "(SELECT id FROM worker WHERE stopped_at IS NULL)"
# An embedded client takes what it started and what a dead worker left; a worker takes the queue
# too, and what the preferred worker did not fetch within its head start. What is owned from its
# start has no `wake_at` and is nobody's to claim until its owner is gone.
_MINE = f"(worker_id = ?1 OR (worker_id IS NOT NULL AND worker_id NOT IN {_LIVE}))"
_ANYONES = "(?3 AND (worker_id IS NULL OR wake_at <= ?4))"
# What `core.versions.runs` says, for the worker ?1. One that did not enter runs what is anyone's.
_RUNS = (
    f"(deployment_id IS NULL OR deployment_id = '{versions.ANY_DEPLOYMENT}' "
    "OR deployment_id = (SELECT w.deployment_id FROM worker w WHERE w.id = ?1)) "
    "AND (code_version IS NULL "
    "OR (SELECT w.versions FROM worker w WHERE w.id = ?1) IS NULL "
    "OR EXISTS (SELECT 1 FROM worker w, json_each(w.versions) v WHERE w.id = ?1 "
    "AND v.key = execution.workflow_id AND v.value = execution.code_version))"
)
_NEED = "workflow_id, deployment_id, code_version"
_CLAIMABLE = (
    "SELECT root_id, id, attempt FROM execution "
    f"WHERE {OPEN} AND status IN ('queued', 'waiting') AND wake_at <= ?5 "
    "AND blocked_reason IS NULL "
    f"AND +workflow_id IN (SELECT value FROM json_each(?2)) AND ({_MINE} OR {_ANYONES}) "
    f"AND {_RUNS} "
    "ORDER BY wake_at LIMIT ?6"
)


def execution(connection: apsw.Connection, execution_id: str) -> Execution | None:
    """Read one execution, or None."""
    found = connection.execute(_EXECUTION, (execution_id,)).fetchall()
    return rows.execution(found[0]) if found else None


def steps(connection: apsw.Connection, root_id: str, execution_id: str) -> list[Row]:
    """Read the journal in one query, by `seq`."""
    return [rows.step(r) for r in connection.execute(_STEPS, (root_id, execution_id))]


def undoing(connection: apsw.Connection, root_id: str, execution_id: str) -> list[Row]:
    """Read the rows of steps that are to be undone, and of their undoing, by `seq`."""
    return [rows.step(r) for r in connection.execute(_UNDOING, (root_id, execution_id))]


def last_seq(connection: apsw.Connection, root_id: str, execution_id: str) -> int:
    """Return the last `seq` of the journal, or 0."""
    return next((r[0] for r in connection.execute(_LAST_SEQ, (root_id, execution_id))), 0)


def states(connection: apsw.Connection, root_id: str, execution_id: str) -> list[StateEntry]:
    """Read all state entries, by version."""
    return [rows.state(r) for r in connection.execute(_STATES, (root_id, execution_id))]


def states_up_to(
    connection: apsw.Connection, root_id: str, execution_id: str, version: int
) -> list[StateEntry]:
    """Read what the state of a version is made of: a snapshot, jumps, deltas (see `core.delta`).

    An entry that is read for its jump has no body.
    """
    found: list[StateEntry] = []
    cursor = connection.execute(_MARKS_DOWN, (root_id, execution_id, version))
    for values in cursor:
        found.append(rows.state(values))
        if found[-1].jump is None:
            cursor.close()
            break
    found.reverse()
    last = found[-1].version if found else -1
    behind = connection.execute(_BETWEEN, (root_id, execution_id, last, version))
    return found + [rows.state(r) for r in behind]


def states_between(
    connection: apsw.Connection, root_id: str, execution_id: str, after: int, until: int
) -> list[StateEntry]:
    """Read the entries behind one version, up to and including another."""
    found = connection.execute(_BETWEEN, (root_id, execution_id, after, until))
    return [rows.state(r) for r in found]


def state_version_at(
    connection: apsw.Connection, root_id: str, execution_id: str, at: int
) -> int | None:
    """Return the last version that was recorded up to a moment."""
    found = connection.execute(_VERSION_AT, (root_id, execution_id, at))
    return next((r[0] for r in found), None)


def state_origin(
    connection: apsw.Connection, root_id: str, execution_id: str, version: int
) -> str | None:
    """Return the last `origin` up to a version."""
    found = connection.execute(_ORIGIN, (root_id, execution_id, version))
    return next((r[0] for r in found), None)


def inbox(connection: apsw.Connection, root_id: str, execution_id: str) -> list[InboxItem]:
    """Read what came from outside for an execution, oldest first."""
    return [rows.inbox_item(r) for r in connection.execute(_INBOX, (root_id, execution_id))]


def claimable(
    connection: apsw.Connection,
    worker_id: str,
    workflows: Sequence[str],
    takes_queue: bool,
    now: int,
    head_start: int,
    limit: int,
) -> list[tuple[str, str, int]]:
    """Find executions that this worker may claim now: (root, id, attempt), oldest first."""
    arguments = (worker_id, json.dumps(list(workflows)), takes_queue, now - head_start, now, limit)
    found: list[Any] = connection.execute(_CLAIMABLE, arguments).fetchall()
    return [(root_id, execution_id, attempt) for root_id, execution_id, attempt in found]


def to_cancel(connection: apsw.Connection, worker_id: str) -> list[str]:
    """Find executions of this worker whose cancellation was asked for and not yet delivered."""
    found = connection.execute(
        "SELECT id FROM execution INDEXED BY execution_to_cancel "
        "WHERE cancel_requested_at IS NOT NULL AND status IN ('queued', 'running', 'waiting') "
        "AND cancel_delivered_at IS NULL AND worker_id = ?",
        (worker_id,),
    )
    return [str(r[0]) for r in found]


def overdue_cancel(connection: apsw.Connection, deadline: int) -> bool:
    """Say whether a cancellation asked for (and delivered) before `deadline` is not done."""
    found = connection.execute(
        "SELECT 1 FROM execution INDEXED BY execution_to_cancel "
        "WHERE cancel_requested_at IS NOT NULL AND status IN ('queued', 'running', 'waiting') "
        "AND max(cancel_requested_at, coalesce(cancel_delivered_at, 0)) < ? LIMIT 1",
        (deadline,),
    )
    return bool(found.fetchall())


def overdue_time(connection: apsw.Connection, deadline: int) -> list[str]:
    """Find executions whose time was over before `deadline`."""
    found = connection.execute(
        "SELECT id FROM execution INDEXED BY execution_timed "
        "WHERE run_timeout_seconds IS NOT NULL AND status IN ('queued', 'running', 'waiting') "
        "AND created_at < ?1 AND created_at + run_timeout_seconds * 1e6 < ?1",
        (deadline,),
    )
    return [str(r[0]) for r in found]


def next_wake(connection: apsw.Connection, worker_id: str, workflows: Sequence[str]) -> int | None:
    """Return when the next timer of an execution of these workflows is due."""
    found: list[Any] = connection.execute(
        f"SELECT wake_at FROM execution WHERE {OPEN} AND status = 'waiting' "
        "AND wake_at IS NOT NULL AND +workflow_id IN (SELECT value FROM json_each(?2)) "
        f"AND {_RUNS} ORDER BY wake_at LIMIT 1",
        (worker_id, json.dumps(list(workflows))),
    ).fetchall()
    return found[0][0] if found else None


def due_needs(connection: apsw.Connection, before: int) -> list[Need]:
    """Return what the executions need that are due since `before` and nobody has claimed."""
    found = connection.execute(
        f"SELECT DISTINCT {_NEED} FROM execution "
        f"WHERE {OPEN} AND status IN ('queued', 'waiting') AND wake_at < ?",
        (before,),
    )
    return [Need(*r) for r in found]


def blocked_needs(connection: apsw.Connection) -> list[Need]:
    """Return what executions need that nobody could run, of workflows that are registered now."""
    found = connection.execute(
        f"SELECT DISTINCT {_NEED} FROM execution INDEXED BY execution_blocked "
        "WHERE blocked_reason IS NOT NULL AND blocked_reason LIKE ? || '%' "
        "AND workflow_id IN (SELECT j.value FROM worker w, json_each(w.workflows) j "
        "WHERE w.stopped_at IS NULL)",
        (versions.NOBODY,),
    )
    return [Need(*r) for r in found]


def has_stopped(connection: apsw.Connection, worker_id: str) -> bool:
    """Say whether a worker left, or was declared dead."""
    found = connection.execute(
        "SELECT 1 FROM worker WHERE id = ? AND stopped_at IS NOT NULL", (worker_id,)
    )
    return bool(found.fetchall())


def live_workers(connection: apsw.Connection) -> list[WorkerRecord]:
    """Read the workers that have not stopped."""
    found = connection.execute(f"SELECT {rows.WORKER_COLUMNS} FROM worker WHERE stopped_at IS NULL")
    return [rows.worker(r) for r in found]


def finished(connection: apsw.Connection, ids: Sequence[str]) -> list[Execution]:
    """Read those of the named executions that have ended."""
    found = connection.execute(
        f"SELECT {rows.EXECUTION_COLUMNS} FROM execution "
        "WHERE id IN (SELECT value FROM json_each(?)) "
        "AND status IN ('completed', 'failed', 'cancelled')",
        (json.dumps(list(ids)),),
    )
    return [rows.execution(r) for r in found]


def listing(connection: apsw.Connection, filters: dict[str, Any], limit: int) -> list[Execution]:
    """List executions newest first; `filters` are columns with their values, and `before`."""
    conditions: list[str] = []
    arguments: list[Any] = []
    for column, value in filters.items():
        conditions.append("id < ?" if column == "before" else f"{column} = ?")
        arguments.append(value)
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    found = connection.execute(
        f"SELECT {rows.EXECUTION_COLUMNS} FROM execution {where}ORDER BY id DESC LIMIT ?",
        (*arguments, limit),
    )
    return [rows.execution(r) for r in found]
