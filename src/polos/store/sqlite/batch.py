"""The hot statements: one batch of commands in one transaction, fenced first.

A batch of any size costs a constant number of prepared statements. The lone row of one execution
has a statement of its own, fence included.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from polos.core.model import (
    Change,
    ClaimLost,
    Publish,
    Published,
    Row,
    Start,
    StateEntry,
    Status,
)
from polos.core.work import Renewal
from polos.store import values
from polos.store.commands import Command, Result, apart
from polos.store.lining import Lining
from polos.store.sqlite import blobs, events, indexing, keyed

_STEP_VALUES = ", ".join("?" * 19)
_OWNED = "attempt = ? AND status IN ('queued', 'running')"

# A row is written a second time when it closes: what was known when it opened stays.
_CLOSES = (
    " ON CONFLICT (root_id, execution_id, seq) DO UPDATE SET turn = excluded.turn, "
    "ok = excluded.ok, body = excluded.body, type = excluded.type, pinned = excluded.pinned, "
    "change = excluded.change, state_version = excluded.state_version, "
    "due_at = excluded.due_at, attempts = excluded.attempts, completed_at = excluded.completed_at"
)
_STEP = f"INSERT INTO step ({values.STEP_COLUMNS}) VALUES ({_STEP_VALUES}){_CLOSES}"
_LONE_STEP = (
    f"INSERT INTO step ({values.STEP_COLUMNS}) SELECT {_STEP_VALUES} WHERE EXISTS "
    f"(SELECT 1 FROM execution WHERE root_id = ? AND id = ? AND {_OWNED}){_CLOSES}"
)
_STATE = f"INSERT INTO state ({values.STATE_COLUMNS}) VALUES ({', '.join('?' * 10)})"
# CROSS JOIN keeps the planner from scanning `execution` for each id of the batch.
_FENCE = (
    "SELECT j.key FROM json_each(?) j CROSS JOIN execution e "
    "WHERE e.root_id = j.value ->> 0 AND e.id = j.value ->> 1 AND e.attempt = j.value ->> 2 "
    "AND e.status IN ('queued', 'running')"
)
_START_VALUES = ", ".join("?" * 25)
_START = (
    f"INSERT INTO execution ({values.START_COLUMNS}, status) VALUES ({_START_VALUES}, 'queued')"
)
_RUNNING = (
    "UPDATE execution SET status = 'running', wake_at = NULL, "
    "started_at = coalesce(started_at, ?) WHERE root_id = ? AND id = ?"
)
_DELIVERED = "UPDATE execution SET cancel_delivered_at = ? WHERE root_id = ? AND id = ?"
_IS_GONE = "SELECT 1 FROM worker WHERE id = ? AND stopped_at IS NOT NULL"
_RETRIED = "UPDATE execution SET retry_count = ? WHERE root_id = ? AND id = ?"
_RELEASED = (
    "UPDATE execution SET status = 'queued', wake_at = ?, attempt = attempt + 1 "
    "WHERE root_id = ? AND id = ?"
)
_RENEWED = (
    "UPDATE execution SET payload = ?, payload_type = ?, generation = generation + 1, "
    "retry_count = 0, crashes = 0, crash_mark = -1 WHERE root_id = ? AND id = ?"
)
# Early answers to suspensions that the next run may come to are kept.
_CUT = (
    "DELETE FROM step WHERE root_id = ?1 AND execution_id = ?2",
    "DELETE FROM state WHERE root_id = ?1 AND execution_id = ?2",
    "DELETE FROM wait WHERE root_id = ?1 AND execution_id = ?2",
    "DELETE FROM inbox WHERE root_id = ?1 AND execution_id = ?2 AND id NOT LIKE 'resume:%'",
    (
        "UPDATE execution SET awaited = 0 WHERE root_id = ?1 AND parent_id = ?2 "
        "AND status IN ('queued', 'running', 'waiting')"
    ),
)
_FORGET = "DELETE FROM step WHERE root_id = ? AND execution_id = ? AND seq = ?"
# An item that came while the attempt was on its way to wait would wake nobody later.
_WAITING = (
    "UPDATE execution SET status = w.status, started_at = coalesce(started_at, ?2), "
    "wake_at = CASE w.status WHEN 'queued' THEN ?2 ELSE ?1 END "
    "FROM (SELECT CASE WHEN (SELECT count(*) FROM inbox i WHERE i.root_id = ?3 "
    "AND i.execution_id = ?4 AND i.kind <> 'early') > ?5 "
    "OR EXISTS (SELECT 1 FROM execution WHERE root_id = ?3 AND id = ?4 "
    "AND cancel_requested_at IS NOT NULL AND cancel_delivered_at IS NULL) "
    "THEN 'queued' ELSE 'waiting' END AS status) w "
    "WHERE root_id = ?3 AND id = ?4 RETURNING execution.status"
)
_WAIT = (
    f"INSERT INTO wait ({values.WAIT_COLUMNS}) VALUES ({', '.join('?' * 10)}) "
    "ON CONFLICT (root_id, execution_id, seq) DO NOTHING"
)
_ANSWERED = "DELETE FROM wait WHERE root_id = ? AND execution_id = ? AND seq = ?"
# An answer that came early, to this execution or to the root of its tree: now it is asked for.
_ASKED_FOR = (
    "UPDATE OR IGNORE inbox SET execution_id = ?2, kind = 'resume' WHERE root_id = ?1 "
    "AND execution_id IN (?2, ?1) AND id = ?3 AND kind = 'early'"
)
_CONSUMED = "DELETE FROM inbox WHERE root_id = ? AND execution_id = ? AND id = ?"
_ENDED = (
    "UPDATE execution SET status = ?, {column} = ?, result_type = ?, completed_at = ?, "
    "wake_at = NULL, blocked_reason = NULL, started_at = coalesce(started_at, ?) "
    "WHERE root_id = ? AND id = ?"
)
_ENDED_OK = _ENDED.format(column="result")
_ENDED_FAILED = _ENDED.format(column="error")
_CLEAR_INBOX = "DELETE FROM inbox WHERE root_id = ? AND execution_id = ?"
_CLEAR_WAITS = "DELETE FROM wait WHERE root_id = ? AND execution_id = ?"
_TELL_PARENT = (
    "INSERT INTO inbox (root_id, execution_id, id, kind, ref, at) "
    "SELECT ?1, ?2, ?3, 'child', ?3, ?4 FROM execution WHERE root_id = ?1 AND id = ?2 "
    "AND status IN ('queued', 'running', 'waiting') "
    "AND (SELECT c.awaited FROM execution c WHERE c.root_id = ?1 AND c.id = ?3) "
    "ON CONFLICT (root_id, execution_id, id) DO NOTHING"
)
# Whoever asked for the cancellation asked all there were: a child may have come after that.
_CANCEL_CHILDREN = (
    "UPDATE execution SET cancel_requested_at = ?1, "
    "wake_at = CASE WHEN status = 'waiting' AND blocked_reason IS NULL THEN ?1 ELSE wake_at END, "
    "status = CASE WHEN status = 'waiting' AND blocked_reason IS NULL THEN 'queued' "
    "ELSE status END WHERE root_id = ?2 AND parent_id = ?3 "
    "AND status IN ('queued', 'running', 'waiting') AND cancel_requested_at IS NULL"
)
_WAKE_PARENT = (
    "UPDATE execution SET status = 'queued', wake_at = ? "
    "WHERE root_id = ? AND id = ? AND status = 'waiting' AND blocked_reason IS NULL"
)


def is_lone_row(change: Change) -> bool:
    """Say whether the change is one row, with the state it recorded, and nothing else."""
    return (
        len(change.rows) == 1
        and change.ending is None
        and change.status is None
        and len(change.states) <= 1
        and not (change.starts or change.consumed or change.cancel_delivered or change.forget)
        and not (change.events or change.waits or change.answered)
        and not (change.refs or change.index)
        and change.retry_count is None
    )


def write_lone_row(connection: apsw.Connection, change: Change) -> Result:
    """Write and commit one row, with its state if it has one; `ClaimLost` if the fence refused it.

    The row alone, fence included, is one statement, which commits by itself.
    """
    row = values.step(change, change.rows[0])
    fence = (change.root_id, change.execution_id, change.attempt)
    if not change.states:
        connection.execute(_LONE_STEP, row + fence)
        return None if connection.changes() else _lost(change)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_LONE_STEP, row + fence)
        if not connection.changes():
            return _lost(change)
        state = values.state(change.root_id, change.execution_id, change.states[0])
        connection.execute(_STATE, state)
        connection.execute("COMMIT")
        return None
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _lost(change: Change) -> ClaimLost:
    return ClaimLost(f"execution {change.execution_id}: attempt {change.attempt} no longer owns it")


def write(
    connection: apsw.Connection,
    batch: Sequence[Command],
    lining: Lining,
    published: Published | None = None,
) -> list[Result]:
    """Write a batch inside the caller's transaction; one result for each command, in order.

    What it published, and whom that woke, is noted in `published`.
    """
    results: list[Result] = [None] * len(batch)
    changes = {n: c for n, c in enumerate(batch) if isinstance(c, Change)}
    valid: list[tuple[int, Change]] = []
    if changes:
        alive = _fence(connection, changes.values())
        for position, (n, change) in enumerate(changes.items()):
            if position in alive:
                valid.append((n, change))
            else:
                results[n] = _lost(change)
    _write_starts(connection, batch, valid, results, lining)
    steps = [values.step(c, row) for _, c in valid for row in c.rows]
    if steps:
        connection.executemany(_STEP, steps)
    states = [values.state(c.root_id, c.execution_id, s) for _, c in valid for s in c.states]
    if states:
        connection.executemany(_STATE, states)
    for _, c in valid:
        if c.index:
            indexing.write(connection, (c.root_id, c.execution_id), c.index)
    forgotten = [(c.root_id, c.execution_id, seq) for _, c in valid for seq in c.forget]
    if forgotten:
        connection.executemany(_FORGET, forgotten)
    consumed = [(c.root_id, c.execution_id, item) for _, c in valid for item in c.consumed]
    if consumed:
        connection.executemany(_CONSUMED, consumed)
    _write_waits(connection, [c for _, c in valid])
    published = Published() if published is None else published
    _publish(connection, batch, valid, published)
    _write_statuses(connection, valid, results)
    blobs.write(connection, apart(c for n, c in enumerate(batch) if _holds(c, results[n])))
    _write_renewals(connection, [c for _, c in valid if c.renewal is not None], published)
    _write_endings(connection, [c for _, c in valid if c.ending is not None], lining)
    return results


def _holds(command: Command, result: Result) -> bool:
    return result == command.id if isinstance(command, Start) else not isinstance(result, ClaimLost)


def write_journal(
    connection: apsw.Connection,
    root_id: str,
    execution_id: str,
    rows: list[Row],
    states: list[StateEntry],
) -> None:
    """Write a whole journal that was recorded elsewhere, unfenced."""
    change = Change(root_id, execution_id, 0)
    connection.executemany(_STEP, [values.step(change, row) for row in rows])
    connection.executemany(_STATE, [values.state(root_id, execution_id, s) for s in states])


def is_owned(connection: apsw.Connection, change: Change) -> bool:
    """Say whether the fence lets a change pass."""
    return bool(_fence(connection, [change]))


def _fence(connection: apsw.Connection, changes: Iterable[Change]) -> set[int]:
    keys = json.dumps([(c.root_id, c.execution_id, c.attempt) for c in changes])
    return {key for (key,) in connection.execute(_FENCE, (keys,))}


def _write_starts(
    connection: apsw.Connection,
    batch: Sequence[Command],
    valid: list[tuple[int, Change]],
    results: list[Result],
    lining: Lining,
) -> None:
    starts: list[Start] = []
    for n, command in enumerate(batch):
        if not isinstance(command, Start):
            continue
        known = _known(connection, command) if command.idempotency_key is not None else None
        results[n] = known or command.id
        if known is None and command.keyed is not None:
            refused = keyed.start(connection, command, command.keyed, lining)
            if refused is not None:
                results[n] = refused
                continue
        if known is None and command.idempotency_key is not None:
            _insert_starts(connection, [command])  # the same key may come twice in one batch
        elif known is None:
            starts.append(command)
    for start in [s for _, c in valid for s in c.starts]:
        if start.keyed is not None:
            keyed.start(connection, start, start.keyed, lining)
        starts.append(start)
    if starts:
        _insert_starts(connection, starts)


def _insert_starts(connection: apsw.Connection, starts: list[Start]) -> None:
    _disown(connection, starts)
    connection.executemany(_START, [values.start(s) for s in starts])
    states = [values.state(s.root_id, s.id, s.first_entry()) for s in starts if s.state is not None]
    if states:
        connection.executemany(_STATE, states)
    for start in starts:
        if start.index:
            indexing.write(connection, (start.root_id, start.id), start.index)


def _disown(connection: apsw.Connection, starts: list[Start]) -> None:
    """What a worker starts that was declared dead, and does not know it yet, is for anyone."""
    for owner in {s.worker_id for s in starts if s.worker_id is not None and s.attempt}:
        if next(connection.execute(_IS_GONE, (owner,)), None) is not None:
            for start in starts:
                if start.worker_id == owner:
                    start.attempt = 0


def _known(connection: apsw.Connection, start: Start) -> str | None:
    found = connection.execute(
        "SELECT id FROM execution WHERE workflow_id = ? AND idempotency_key = ?",
        (start.workflow_id, start.idempotency_key),
    )
    return next((str(row[0]) for row in found), None)


def _publish(
    connection: apsw.Connection,
    batch: Sequence[Command],
    valid: list[tuple[int, Change]],
    published: Published,
) -> None:
    kept = {n for n, _ in valid}
    new = [
        event
        for n, c in enumerate(batch)
        if isinstance(c, Publish) or (n in kept and isinstance(c, Change))
        for event in c.events
    ]
    if new:
        events.publish(connection, new, published)


def _write_waits(connection: apsw.Connection, changes: list[Change]) -> None:
    opened = [values.wait(wait) for c in changes for wait in c.waits]
    if opened:
        connection.executemany(_WAIT, opened)
        keys = values.asked_for(wait for c in changes for wait in c.waits)
        connection.executemany(_ASKED_FOR, keys)
    answered = [(c.root_id, c.execution_id, seq) for c in changes for seq in c.answered]
    if answered:
        connection.executemany(_ANSWERED, answered)


def _write_statuses(
    connection: apsw.Connection, valid: list[tuple[int, Change]], results: list[Result]
) -> None:
    running: list[tuple[Any, ...]] = []
    delivered: list[tuple[Any, ...]] = []
    retried: list[tuple[Any, ...]] = []
    released: list[tuple[Any, ...]] = []
    for n, c in valid:
        at = c.at
        if c.cancel_delivered:
            delivered.append((at, c.root_id, c.execution_id))
        if c.retry_count is not None:
            retried.append((c.retry_count, c.root_id, c.execution_id))
        if c.status is Status.RUNNING:
            running.append((at, c.root_id, c.execution_id))
        elif c.status is Status.QUEUED:
            released.append((c.wake_at or 0, c.root_id, c.execution_id))
            if c.renewal is not None:  # this run may be over with its first commit
                running.append((at, c.root_id, c.execution_id))
        elif c.status is Status.WAITING:
            arguments = (c.wake_at, at, c.root_id, c.execution_id, c.seen)
            results[n] = str(next(iter(connection.execute(_WAITING, arguments)))[0])
    for sql, rows in (
        (_RUNNING, running),
        (_DELIVERED, delivered),
        (_RETRIED, retried),
        (_RELEASED, released),
    ):
        if rows:
            connection.executemany(sql, rows)


def _write_renewals(
    connection: apsw.Connection, changes: list[Change], published: Published
) -> None:
    for root_id in sorted({c.root_id for c in changes}):
        events.derive(connection, root_id, published)  # the topic keeps what is cut
    for c in changes:
        if c.renewal is not None:
            _renew(connection, c, c.renewal)


def _renew(connection: apsw.Connection, change: Change, renewal: Renewal) -> None:
    key = (change.root_id, change.execution_id)
    for statement in _CUT:
        connection.execute(statement, key)
    if renewal.state is not None:
        entry = StateEntry(renewal.state_version, None, renewal.at, renewal.state)
        entry.schema_version = renewal.schema_version
        connection.execute(_STATE, values.state(*key, entry))
    connection.execute(_RENEWED, (renewal.payload, renewal.payload_type, *key))


def _write_endings(connection: apsw.Connection, changes: list[Change], lining: Lining) -> None:
    good: list[tuple[Any, ...]] = []
    bad: list[tuple[Any, ...]] = []
    told: list[tuple[str, str, str, int]] = []
    left: list[tuple[int, str, str]] = []
    for c in changes:
        end = c.ending
        if end is None:
            continue
        row = (end.status, end.body, end.type, end.at, end.at, c.root_id, c.execution_id)
        (good if end.status is Status.COMPLETED else bad).append(row)
        if end.parent_id is not None:
            told.append((c.root_id, end.parent_id, c.execution_id, end.at))
        if end.with_children:
            left.append((end.at, c.root_id, c.execution_id))
    if good:
        connection.executemany(_ENDED_OK, good)
    if bad:
        connection.executemany(_ENDED_FAILED, bad)
    if changes:
        clear_inboxes(connection, [(c.root_id, c.execution_id) for c in changes])
    if told:
        tell_parents(connection, told)
    if left:
        connection.executemany(_CANCEL_CHILDREN, left)
    for c in changes:
        if c.ending is not None and c.ending.key is not None:
            completed = c.ending.status is Status.COMPLETED
            execution = (c.root_id, c.execution_id)
            at = c.ending.at
            keyed.leave(connection, c.ending.key, execution, lining, completed=completed, at=at)


def clear_inboxes(connection: apsw.Connection, keys: Sequence[tuple[str, str]]) -> None:
    """Drop what came for executions, given by (root, id), that have ended."""
    connection.executemany(_CLEAR_INBOX, keys)


def clear_waits(connection: apsw.Connection, keys: Sequence[tuple[str, str]]) -> None:
    """Nothing waits any more in executions, given by (root, id), that were ended from outside.

    An execution that ends by itself says which of its waits are over.
    """
    connection.executemany(_CLEAR_WAITS, keys)


def tell_parents(connection: apsw.Connection, told: Sequence[tuple[str, str, str, int]]) -> None:
    """Put the ends of children into their parents' inboxes, and wake the parents that wait.

    Each is (root, parent, child, moment).
    """
    connection.executemany(_TELL_PARENT, told)
    connection.executemany(_WAKE_PARENT, [(at, root, parent) for root, parent, _, at in told])
