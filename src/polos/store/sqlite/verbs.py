"""The less frequent writes: claims, cancellation, retry, workers and taking over.

Each function runs inside a transaction that the caller opened on the writer connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from polos.core import failure, transitions, versions
from polos.core.keyed import Keyed
from polos.core.model import Execution, Failure, StateEntry, Status, Work, WorkerRecord
from polos.core.upkeep import Need
from polos.errors import ConflictError, ExecutionNotFoundError
from polos.store.lining import Lining
from polos.store.sqlite import batch, keyed, queries

_CLAIM = (
    "UPDATE execution SET status = 'running', attempt = attempt + 1, worker_id = ?1, "
    "wake_at = NULL, blocked_reason = NULL, started_at = coalesce(started_at, ?2) "
    "WHERE root_id = ?3 AND id = ?4"
)
_SET_VERSION = (
    "UPDATE execution SET code_version = v.value FROM worker w, json_each(w.versions) v "
    "WHERE w.id = ?1 AND v.key = execution.workflow_id AND root_id = ?2 AND execution.id = ?3 "
    "RETURNING code_version"
)
# Queued behind others with its state key: the end of the one before it makes it claimable.
_IS_BEHIND = "(status = 'queued' AND attempt = 0 AND wake_at IS NULL)"
_OF_NEED = "workflow_id = ? AND deployment_id IS ? AND code_version IS ?"
_RELEASE = (
    "UPDATE execution INDEXED BY execution_blocked "
    "SET status = 'queued', wake_at = 0, blocked_reason = NULL WHERE blocked_reason IS NOT NULL "
    f"AND blocked_reason LIKE '{versions.NOBODY}%' AND {_OF_NEED}"
)
_BLOCK = (
    "UPDATE execution INDEXED BY execution_open "
    "SET status = 'waiting', wake_at = NULL, blocked_reason = ? "
    f"WHERE {queries.OPEN} AND status IN ('queued', 'waiting') AND wake_at < ? AND {_OF_NEED}"
)
_TREE = (
    "WITH RECURSIVE tree (id) AS (SELECT ?2 UNION ALL SELECT e.id FROM execution e "
    "JOIN tree t ON e.parent_id = t.id WHERE e.root_id = ?1) "
    "SELECT e.id FROM tree t CROSS JOIN execution e ON e.root_id = ?1 AND e.id = t.id "
    "WHERE e.status IN ('queued', 'running', 'waiting')"
)


def claim(
    connection: apsw.Connection,
    worker_id: str,
    keys: Sequence[tuple[str, str, int]],
    parked: dict[str, tuple[int, int]],
    now: int,
) -> list[Work]:
    """Make `worker_id` the owner of executions that are still free, and read their work.

    `keys` are (root, id, attempt) as `queries.claimable` found them: one that moved on since is
    left out. `parked` has (attempt, last seq) of coroutines in the caller's memory; where the
    journal still stands there, only the inbox is read.
    """
    works: list[Work] = []
    if queries.has_stopped(connection, worker_id):
        return works  # declared dead, and does not know it yet: what it took would be nobody's
    for root_id, execution_id, attempt in keys:
        found = queries.execution(connection, execution_id)
        if found is None or found.attempt != attempt:
            continue
        if not _is_free(found, now) and not _is_own(found, worker_id, parked):
            continue
        connection.execute(_CLAIM, (worker_id, now, root_id, execution_id))
        if found.code_version is None:  # started by a process that does not have its code
            found.code_version = _set_version(connection, worker_id, root_id, execution_id)
        found.status, found.worker_id, found.attempt = Status.RUNNING, worker_id, attempt + 1
        found.started_at = found.started_at or now
        found.wake_at = None
        position = parked.get(execution_id)
        inbox = queries.inbox(connection, root_id, execution_id)
        last = queries.last_seq(connection, root_id, execution_id)
        if position == (attempt, last):
            works.append(Work(found, [], [], inbox, last))
            continue
        rows = queries.steps(connection, root_id, execution_id)
        states = queries.states(connection, root_id, execution_id)
        works.append(Work(found, rows, states, inbox))
    return works


def _set_version(
    connection: apsw.Connection, worker_id: str, root_id: str, execution_id: str
) -> str | None:
    """Let an execution have the version of the code that runs it, if the worker compares code."""
    found = connection.execute(_SET_VERSION, (worker_id, root_id, execution_id))
    return next((str(version) for (version,) in found), None)


def _is_own(execution: Execution, worker_id: str, parked: dict[str, tuple[int, int]]) -> bool:
    # Code beside a wait goes on: the coroutine is here, whatever moment the wait is for.
    return (
        execution.id in parked
        and execution.worker_id == worker_id
        and execution.status is Status.WAITING
        and execution.blocked_reason is None
    )


def _is_free(execution: Execution, now: int) -> bool:
    return (
        execution.status in (Status.QUEUED, Status.WAITING)
        and execution.blocked_reason is None
        and execution.wake_at is not None
        and execution.wake_at <= now
    )


def cancel(
    connection: apsw.Connection, execution_id: str, now: int, lining: Lining
) -> dict[str, str]:
    """Ask for the cancellation of an execution and its descendants.

    Returns what happened to each: `cancelled` (nothing of it had run, or nobody can run it),
    `queued` (it waited and is woken to clean up) or `requested` (its owner is told).
    """
    target = require(connection, execution_id)
    if target.status in transitions.TERMINAL:
        return {}
    done: dict[str, str] = {}
    tree = [str(row[0]) for row in connection.execute(_TREE, (target.root_id, target.id))]
    for each in tree:
        record = require(connection, each)
        verdict = transitions.on_cancel(record)
        done[each] = verdict
        if verdict == "cancelled":
            connection.execute(
                "UPDATE execution SET cancel_requested_at = ? WHERE id = ?", (now, each)
            )
            end(connection, record, Status.CANCELLED, transitions.cancelled_failure(), now, lining)
            continue
        status = Status.QUEUED if verdict == "queued" else record.status
        connection.execute(
            "UPDATE execution SET cancel_requested_at = coalesce(cancel_requested_at, ?), "
            "status = ?, blocked_reason = NULL, "
            "wake_at = CASE WHEN ? = 'queued' THEN ? ELSE wake_at END WHERE root_id = ? AND id = ?",
            (now, status, verdict, now, record.root_id, record.id),
        )
    return done


def end(
    connection: apsw.Connection,
    record: Execution,
    status: Status,
    failed: Failure,
    now: int,
    lining: Lining,
) -> None:
    """End an execution from outside its owner, who is fenced by it; its parent is told.

    Its steps are not undone any more; the failure names them.
    """
    rows = queries.undoing(connection, record.root_id, record.id) if record.attempt else []
    error = failure.dump(transitions.left_undone(failed, transitions.not_undone(rows)))
    connection.execute(
        "UPDATE execution SET status = ?, error = ?, attempt = attempt + 1, completed_at = ?, "
        "wake_at = NULL, blocked_reason = NULL WHERE root_id = ? AND id = ?",
        (status, error, now, record.root_id, record.id),
    )
    batch.clear_inboxes(connection, [(record.root_id, record.id)])
    if record.state_key is not None:
        key = (record.workflow_id, record.state_key)
        execution = (record.root_id, record.id)
        keyed.leave(connection, key, execution, lining, completed=False, at=now)
    batch.clear_waits(connection, [(record.root_id, record.id)])
    if record.awaited and record.parent_id is not None:
        batch.tell_parents(connection, [(record.root_id, record.parent_id, record.id, now)])


def force_cancel(connection: apsw.Connection, deadline: int, now: int, lining: Lining) -> list[str]:
    """End what was asked to cancel, or ran out of time, before `deadline` and has not ended."""
    found = connection.execute(
        "SELECT id FROM execution INDEXED BY execution_to_cancel "
        "WHERE cancel_requested_at IS NOT NULL AND status IN ('queued', 'running', 'waiting') "
        "AND max(cancel_requested_at, coalesce(cancel_delivered_at, 0)) < ?",
        (deadline,),
    )
    ids = [str(row[0]) for row in found]
    for execution_id in ids:
        record = require(connection, execution_id)
        end(connection, record, Status.CANCELLED, transitions.cancelled_failure(), now, lining)
    for execution_id in queries.overdue_time(connection, deadline):
        record = require(connection, execution_id)
        failed = transitions.timeout_failure(record.run_timeout_seconds or 0.0)
        end(connection, record, Status.FAILED, failed, now, lining)
        ids.append(execution_id)
    return ids


def block(connection: apsw.Connection, execution_id: str, attempt: int, reason: str) -> bool:
    """Park an execution as `waiting` with a reason, if `attempt` still is its current one."""
    connection.execute(
        "UPDATE execution SET status = 'waiting', wake_at = NULL, blocked_reason = ?, "
        "attempt = attempt + 1 WHERE id = ? AND attempt = ? AND status IN ('queued', 'running')",
        (reason, execution_id, attempt),
    )
    return connection.changes() > 0


def retry(connection: apsw.Connection, execution_id: str, now: int) -> None:
    """Queue a failed execution again from its failed step, or release one that is blocked."""
    record = require(connection, execution_id)
    if record.status is Status.WAITING and record.blocked_reason is not None:
        connection.execute(
            "UPDATE execution SET status = 'queued', wake_at = 0, blocked_reason = NULL, "
            "crashes = 0, crash_mark = -1 WHERE id = ?",
            (execution_id,),
        )
        return
    if record.blocked_reason == transitions.REMOVING:
        raise ConflictError(f"execution {execution_id!r} is {transitions.REMOVING}; start it anew")
    if record.status is not Status.FAILED:
        raise ConflictError(
            f"execution {execution_id!r} is {record.status}; only a failed execution, or one "
            "that is blocked, can be retried"
        )
    keyed.enter_again(connection, record, "retried")
    rows = queries.steps(connection, record.root_id, execution_id)
    gone = transitions.on_retry(execution_id, rows, record.error)
    connection.executemany(
        "DELETE FROM step WHERE root_id = ? AND execution_id = ? AND seq = ?",
        [(record.root_id, execution_id, seq) for seq in gone],
    )
    connection.execute(
        "UPDATE execution SET status = 'queued', wake_at = 0, attempt = attempt + 1, "
        "error = NULL, result_type = NULL, completed_at = NULL, cancel_requested_at = NULL, "
        "cancel_delivered_at = NULL, retry_count = retry_count + 1, crashes = 0, "
        "crash_mark = -1, run_timeout_seconds = CASE "
        "WHEN run_timeout_seconds IS NULL THEN NULL "
        "ELSE run_timeout_seconds + (? - created_at) / 1e6 END WHERE id = ?",
        (now, execution_id),
    )


def enter_key(
    connection: apsw.Connection, execution_id: str, attempt: int, keyed_by: Keyed, lining: Lining
) -> list[StateEntry] | None:
    """Let a claimed execution that was started without its state key take its place.

    Returns the states that it begins with; None if it has to wait for others, or is not `attempt`'s
    any more.
    """
    record = require(connection, execution_id)
    owned = record.status is Status.RUNNING and record.attempt == attempt
    if not owned or record.state_key is not None:
        return None
    if not keyed.enter(connection, record, keyed_by, lining):
        return None
    return queries.states(connection, record.root_id, record.id)


def require(connection: apsw.Connection, execution_id: str) -> Execution:
    """Read an execution that must exist."""
    found = queries.execution(connection, execution_id)
    if found is None:
        raise ExecutionNotFoundError(execution_id)
    return found


def register_worker(connection: apsw.Connection, worker: WorkerRecord) -> None:
    """Write or refresh a worker's row."""
    connection.execute(
        "INSERT INTO worker (id, host, pid, started_at, stopped_at, takes_queue, workflows, "
        "deployment_id, versions) "
        "VALUES (?, ?, ?, ?, NULL, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "takes_queue = excluded.takes_queue, workflows = excluded.workflows, "
        "deployment_id = excluded.deployment_id, versions = excluded.versions",
        (
            worker.id,
            worker.host,
            worker.pid,
            worker.started_at,
            worker.takes_queue,
            worker.workflows,
            worker.deployment_id,
            worker.versions,
        ),
    )


def stop_worker(
    connection: apsw.Connection,
    worker_id: str,
    now: int,
    *,
    crashed: bool,
    crashes_max: int,
    again: bool = False,
) -> int:
    """Mark a worker as gone and hand back all that it owned; returns how many executions.

    After a crash each execution counts it; one that died `crashes_max` times in a row without a
    new row in its journal is parked with a reason (JOURNAL 10). `again` hands back what a worker
    that was declared dead started before it knew.
    """
    connection.execute(
        "UPDATE worker SET stopped_at = ? WHERE id = ? AND stopped_at IS NULL", (now, worker_id)
    )
    if not connection.changes() and not again:
        return 0
    owned: list[Any] = connection.execute(
        "SELECT root_id, id, attempt, status FROM execution "
        f"WHERE {queries.OPEN} AND status IN ('queued', 'running') AND worker_id = ? "
        f"AND NOT {_IS_BEHIND}",
        (worker_id,),
    ).fetchall()
    for root_id, execution_id, attempt, _status in owned:
        if crashed and attempt > 0:
            _count_crash(connection, root_id, execution_id)
        connection.execute(
            "UPDATE execution SET attempt = attempt + 1, "
            "status = CASE WHEN crashes >= ?1 THEN 'waiting' ELSE 'queued' END, "
            "wake_at = CASE WHEN crashes >= ?1 THEN NULL ELSE 0 END, "
            "blocked_reason = CASE WHEN crashes >= ?1 THEN ?2 ELSE NULL END "
            "WHERE root_id = ?3 AND id = ?4",
            (crashes_max, transitions.crash_loop_reason(crashes_max), root_id, execution_id),
        )
    return len(owned)


def _count_crash(connection: apsw.Connection, root_id: str, execution_id: str) -> None:
    # The mark counts rows and turns, so that closing an open row is progress as well.
    connection.execute(
        "UPDATE execution SET "
        "crashes = CASE WHEN crash_mark = m.mark THEN crashes + 1 ELSE 1 END, crash_mark = m.mark "
        "FROM (SELECT coalesce(max(seq), 0) + coalesce(max(turn), 0) AS mark FROM step "
        "WHERE root_id = ?1 AND execution_id = ?2) m WHERE root_id = ?1 AND id = ?2",
        (root_id, execution_id),
    )


def to_sort_out(
    connection: apsw.Connection, before: int
) -> tuple[list[Need], list[tuple[Need, str]]]:
    """Find what is blocked and may be run now, and what is due and nobody may run, with why."""
    return versions.sort_out(
        queries.live_workers(connection),
        queries.blocked_needs(connection),
        queries.due_needs(connection, before),
    )


def sort_out(connection: apsw.Connection, before: int) -> None:
    """Release what was blocked for want of a worker that is here now; block what nobody may run.

    What is due since `before` and no live worker may run, for want of the workflow, the deployment
    or the code, is parked as `waiting` with a reason.
    """
    released, blocked = to_sort_out(connection, before)
    connection.executemany(
        _RELEASE, [(n.workflow_id, n.deployment_id, n.code_version) for n in released]
    )
    connection.executemany(
        _BLOCK,
        [(why, before, n.workflow_id, n.deployment_id, n.code_version) for n, why in blocked],
    )
