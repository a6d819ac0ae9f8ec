"""The hot statements: one batch of commands in one transaction, locked and fenced first.

A batch of any size costs a constant number of statements, each with its rows as arrays. The lone
row, start or ending of one execution is one statement that is its own transaction, fence included.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polos.core.keys import Key
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
from polos.errors import ConflictError
from polos.store import values
from polos.store.commands import Command, Result, apart
from polos.store.lining import Lining
from polos.store.postgres import blobs, indexing, keyed
from polos.store.postgres import statements as sql
from polos.store.postgres.events import Publishing
from polos.store.postgres.links import Link

_GENERATION = "UPDATE {s}.execution SET generation = $3::bigint WHERE root_id = $1 AND id = $2"


class Written:
    """What a batch came to: one result for each command, and who should hear of it."""

    def __init__(self, count: int) -> None:
        self.results: list[Result] = [None] * count
        self.bells: set[str] = set()
        self.published = Published()


def lone(command: Command) -> bool:
    """Say whether a single statement writes the command: a row, a start or an ending."""
    if isinstance(command, Start):
        plain = command.idempotency_key is None and command.keyed is None
        return plain and not (command.refs or command.index)
    if isinstance(command, Publish):
        return False
    plain = (
        command.status in (None, Status.RUNNING)
        and len(command.states) <= 1
        and not (command.starts or command.consumed or command.cancel_delivered or command.forget)
        and not (command.events or command.waits or command.answered)
        and not (command.refs or command.index)
        and command.retry_count is None
    )
    if not plain:
        return False
    end = command.ending
    if end is None:
        return len(command.rows) == 1
    plain = end.parent_id is None and end.key is None and not command.rows
    return plain and end.status is Status.COMPLETED


def lone_statement(command: Command) -> tuple[str, tuple[Any, ...]]:
    """Return the statement of a command for which `lone` has one, and its arguments."""
    assert not isinstance(command, Publish)
    if isinstance(command, Start):
        if command.state is None:
            return sql.LONE_START, values.start(command)
        return sql.LONE_START_AND_STATE, (
            *values.start(command),
            command.state,
            command.schema_version,
        )
    entry: tuple[Any, ...] = ()
    if command.states:
        entry = values.state(command.root_id, command.execution_id, command.states[0])[2:]
    end = command.ending
    if end is None:
        row = values.step(command, command.rows[0])
        first = command.status is Status.RUNNING
        moment = (command.at,) if first else ()
        return sql.LONE_ROWS[first, bool(entry), command.new], (
            *row,
            command.attempt,
            *moment,
            *entry,
        )
    key = (command.root_id, command.execution_id)
    how = (end.status, end.body, end.type, end.at, command.attempt)
    return sql.LONE_ENDING_AND_STATE if entry else sql.LONE_ENDING, (*key, *how, *entry)


def lone_result(command: Command, rows: Sequence[Any], status: str) -> Result:
    """Return what a lone command came to, from what its statement returned and wrote."""
    if isinstance(command, Start):
        command.attempt = rows[0][0]
        return command.id
    assert not isinstance(command, Publish)
    return _lost(command) if status.endswith(" 0") else None


async def write_lone(link: Link, command: Command) -> Result:
    """Write a command for which `lone` has a statement; commits by itself."""
    statement, arguments = lone_statement(command)
    if isinstance(command, Start):
        return lone_result(command, await link.fetch(statement, *arguments), "")
    return lone_result(command, (), await link.execute(statement, *arguments))


def _lost(change: Change) -> ClaimLost:
    return ClaimLost(f"execution {change.execution_id}: attempt {change.attempt} no longer owns it")


def _distinct(rows: list[Row]) -> list[Row]:
    """Make one row of one that opens and closes in the same change: a statement writes it once."""
    if len(rows) < 2:
        return rows
    found: dict[int, Row] = {}
    for row in rows:
        opened = found.get(row.seq)
        found[row.seq] = row if opened is None else _closed(opened, row)
    return list(found.values())


def _closed(opened: Row, row: Row) -> Row:
    return replace(
        row,
        kind=opened.kind,
        key=opened.key,
        asked=opened.asked,
        call=opened.call,
        info=opened.info,
        started_at=opened.started_at,
    )


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


async def _write(link: Link, statement: str, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    return await link.fetch(statement, *_columns(rows)) if rows else []


async def write(link: Link, batch: Sequence[Command], lining: Lining, *, again: bool) -> Written:
    """Write a batch inside the caller's transaction.

    `again` says that it was sent before over a connection that was lost: what that one committed is
    found and counts as done now.
    """
    written = Written(len(batch))
    changes = [(n, c) for n, c in enumerate(batch) if isinstance(c, Change)]
    publishing = Publishing(link, written.published, written.bells)
    topics = [e.topic for c in batch if not isinstance(c, Start) for e in c.events]
    topics += [c.renewal.topic for _, c in changes if c.renewal is not None]
    await _lock_owners(link, batch)
    valid = await _fence(link, changes, written, publishing, await publishing.waiting(topics))
    if again:
        await _settle_sent(link, changes, written)
    await keyed.lock(link, _keys(batch, valid))
    await _write_starts(link, batch, valid, written, lining, again=again)
    kept = [c for _, c in valid]
    for c in kept:
        if c.renewal is not None:  # executions are locked before topics
            await link.fetch(sql.LET_GO, c.root_id, c.execution_id)
    await _write(link, sql.STEPS, [values.step(c, row) for c in kept for row in _distinct(c.rows)])
    await _write(
        link,
        sql.STATES_AGAIN if again else sql.STATES,
        [values.state(c.root_id, c.execution_id, s) for c in kept for s in c.states],
    )
    await indexing.write(link, [(c.root_id, c.execution_id, e) for c in kept for e in c.index])
    await _write(link, sql.FORGET, [(c.root_id, c.execution_id, q) for c in kept for q in c.forget])
    await _write(
        link,
        sql.CONSUMED,
        [(c.root_id, c.execution_id, item) for c in kept for item in c.consumed],
    )
    waits = [wait for c in kept for wait in c.waits]
    waited = [wait.topic for wait in waits if wait.topic is not None]
    if topics or waited:
        await publishing.lock(topics, waited, again=again)
    await _write(link, sql.WAITS, [values.wait(wait) for wait in waits])
    await _write(link, sql.ASKED_FOR, values.asked_for(waits))
    answered = [(c.root_id, c.execution_id, seq) for c in kept for seq in c.answered]
    await _write(link, sql.ANSWERED, answered)
    if topics:
        alive = {n for n, _ in valid}
        await publishing.write(
            [
                event
                for n, c in enumerate(batch)
                if isinstance(c, Publish) or (n in alive and isinstance(c, Change))
                for event in c.events
            ],
            again=again,
        )
    await _write_statuses(link, valid, written)
    held = [c for n, c in enumerate(batch) if _holds(c, written.results[n])]
    await blobs.write(link, apart(held))
    await _write_renewals(link, [c for c in kept if c.renewal is not None], publishing)
    await _write_endings(link, [c for c in kept if c.ending is not None], written, lining)
    return written


def _holds(command: Command, result: Result) -> bool:
    return result == command.id if isinstance(command, Start) else not isinstance(result, ClaimLost)


def _keys(batch: Sequence[Command], valid: Sequence[tuple[int, Change]]) -> set[Key]:
    """Return the state keys that a batch touches."""
    starts = [c for c in batch if isinstance(c, Start)] + [s for _, c in valid for s in c.starts]
    found = {(s.workflow_id, s.keyed.key) for s in starts if s.keyed is not None}
    ended = [c.ending.key for _, c in valid if c.ending is not None]
    return found | {key for key in ended if key is not None}


async def _lock_owners(link: Link, batch: Sequence[Command]) -> None:
    """Lock the workers that own what the batch starts; what dead ones started is for anyone."""
    starts = [c for c in batch if isinstance(c, Start)]
    starts += [s for c in batch if isinstance(c, Change) for s in c.starts]
    owners = {s.worker_id for s in starts if s.worker_id is not None and s.attempt}
    if not owners:
        return
    found = await link.fetch(sql.OWNERS, sorted(owners))
    gone = {id_ for id_, stopped in found if stopped}
    for start in starts:
        if start.worker_id in gone:
            start.attempt = 0


async def _fence(
    link: Link,
    changes: Sequence[tuple[int, Change]],
    written: Written,
    publishing: Publishing,
    waiting: Sequence[tuple[str, str]],
) -> list[tuple[int, Change]]:
    """Lock all that the batch touches, in one order; returns the changes whose claim holds.

    `waiting` are executions, by (root, id), that may get events.
    """
    if not changes and not waiting:
        return []
    keys: list[tuple[str, str, int | None]] = [
        (c.root_id, c.execution_id, c.attempt) for _, c in changes
    ]
    parents = {
        (c.root_id, c.ending.parent_id)
        for _, c in changes
        if c.ending is not None and c.ending.parent_id is not None
    }
    keys += [(*parent, None) for parent in parents]
    first_waiting = len(keys)
    keys += [(*each, None) for each in waiting]
    alive: set[int] = set()
    for n, worker_id, other in await _write(link, sql.FENCE, keys):
        if n > first_waiting:
            publishing.owners[keys[n - 1][1]] = worker_id
        elif other and worker_id is not None:
            written.bells.add(f"worker:{worker_id}")
        elif not other:
            alive.add(n - 1)
    for position, (n, change) in enumerate(changes):
        if position not in alive:
            written.results[n] = _lost(change)
    return [each for position, each in enumerate(changes) if position in alive]


async def owns(link: Link, change: Change, written: Written) -> bool:
    """Lock the execution of a lone change, and say whether its claim holds."""
    key = (change.root_id, change.execution_id, change.attempt)
    if await _write(link, sql.FENCE, [key]):
        return True
    written.results[0] = _lost(change)
    return False


async def _settle_sent(link: Link, changes: Sequence[tuple[int, Change]], written: Written) -> None:
    refused = [each for each in changes if isinstance(written.results[each[0]], ClaimLost)]
    keys = [(c.root_id, c.execution_id, c.attempt) for _, c in refused]
    for position, status, completed_at in await _write(link, sql.SENT_BEFORE, keys):
        n, change = refused[int(position) - 1]
        if change.ending is not None and completed_at == change.ending.at:
            written.results[n] = None
        elif change.status is Status.WAITING and status == Status.WAITING:
            written.results[n] = str(Status.WAITING)


async def _write_starts(
    link: Link,
    batch: Sequence[Command],
    valid: Sequence[tuple[int, Change]],
    written: Written,
    lining: Lining,
    *,
    again: bool,
) -> None:
    given = [(n, c) for n, c in enumerate(batch) if isinstance(c, Start)]
    starts = [c for _, c in given] + [s for _, c in valid for s in c.starts]
    if not starts:
        return
    statement = sql.STARTS_AGAIN if again else sql.STARTS
    plain = [values.start(s) for s in starts if s.keyed is None]
    made = {id_ for (id_,) in await _write(link, statement, plain)}
    refused: dict[str, ConflictError] = {}
    for start in starts:
        if start.keyed is not None:
            why = await _start_keyed(link, start, statement, made, lining)
            refused |= {} if why is None else {start.id: why}
    await _write(
        link,
        sql.STATES,
        [
            values.state(s.root_id, s.id, s.first_entry())
            for s in starts
            if s.state is not None and s.id in made
        ],
    )
    await indexing.write(
        link, [(s.root_id, s.id, each) for s in starts if s.id in made for each in s.index]
    )
    for n, command in given:
        written.results[n] = refused.get(command.id, command.id)
    left = [(n, c) for n, c in given if c.idempotency_key is not None and c.id not in made]
    rows = [(c.id, c.workflow_id, c.idempotency_key) for _, c in left]
    for position, known in await _write(link, sql.KNOWN, rows):
        written.results[left[position - 1][0]] = known


async def _start_keyed(
    link: Link, start: Start, statement: str, made: set[str], lining: Lining
) -> ConflictError | None:
    """Write one start with a state key, behind those of the batch before it; or say why not."""
    assert start.keyed is not None
    sent = await link.row(sql.SENT_START, start.root_id, start.id)
    if sent is not None:  # by a connection that was lost
        start.attempt, start.is_behind, start.loaded = sent[0], False, None
        start.state, start.schema_version = sent[1], sent[2]
        return None
    refused = await keyed.place(link, start, start.keyed, lining)
    if refused is not None:
        return refused
    found = await _write(link, statement, [values.start(start)])
    if found:
        made.add(start.id)
        key = (start.workflow_id, start.keyed.key)
        first = not start.is_behind
        await keyed.enter(link, key, start.keyed, (start.root_id, start.id), first=first)
    return None


async def start_with(
    link: Link, start: Start, journal: Sequence[Row], states: Sequence[StateEntry]
) -> None:
    """Create an execution that goes on from a journal; it may have been sent before."""
    change = Change(start.root_id, start.id, 0)
    await _write(link, sql.STARTS_AGAIN, [values.start(start)])
    await _write(link, sql.STEPS, [values.step(change, row) for row in journal])
    rows = [values.state(start.root_id, start.id, each) for each in states]
    await _write(link, sql.STATES_AGAIN, rows)
    await indexing.write(link, [(start.root_id, start.id, each) for each in start.index])
    await blobs.write(link, apart([start]))
    if start.forked_from is not None:
        source = json.loads(start.forked_from)["execution_id"]
        await link.fetch(blobs.REFS_OF, start.root_id, start.id, source)
    if start.generation:
        await link.fetch(_GENERATION, start.root_id, start.id, start.generation)


async def _write_statuses(
    link: Link, valid: Sequence[tuple[int, Change]], written: Written
) -> None:
    by_statement: dict[str, list[tuple[Any, ...]]] = {
        each: [] for each in (sql.RUNNING, sql.DELIVERED, sql.RETRIED, sql.RELEASED)
    }
    waiting: list[tuple[int, Change]] = []
    for n, c in valid:
        key = (c.root_id, c.execution_id)
        if c.cancel_delivered:
            by_statement[sql.DELIVERED].append((*key, c.at))
        if c.retry_count is not None:
            by_statement[sql.RETRIED].append((*key, c.retry_count))
        if c.status is Status.RUNNING:
            by_statement[sql.RUNNING].append((*key, c.at))
        elif c.status is Status.QUEUED:
            by_statement[sql.RELEASED].append((*key, c.wake_at or 0))
            if c.renewal is not None:  # this run may be over with its first commit
                by_statement[sql.RUNNING].append((*key, c.at))
        elif c.status is Status.WAITING:
            waiting.append((n, c))
    for statement, rows in by_statement.items():
        await _write(link, statement, rows)
    rows = [(c.root_id, c.execution_id, c.wake_at, c.at, c.seen) for _, c in waiting]
    for position, status in await _write(link, sql.WAITING, rows):
        written.results[waiting[position - 1][0]] = status


async def _write_renewals(link: Link, changes: Sequence[Change], publishing: Publishing) -> None:
    for root_id in sorted({c.root_id for c in changes}):
        await publishing.derive(root_id)  # the topic keeps what is cut
    for c in changes:
        if c.renewal is not None:
            await _renew(link, c, c.renewal)


async def _renew(link: Link, change: Change, renewal: Renewal) -> None:
    key = (change.root_id, change.execution_id)
    for statement in sql.CUT:
        await link.fetch(statement, *key)
    if renewal.state is not None:
        entry = StateEntry(renewal.state_version, None, renewal.at, renewal.state)
        entry.schema_version = renewal.schema_version
        await _write(link, sql.STATES, [values.state(*key, entry)])
    await link.fetch(sql.RENEWED, *key, renewal.payload, renewal.payload_type)


async def _write_endings(
    link: Link, ended: Sequence[Change], written: Written, lining: Lining
) -> None:
    rows: list[tuple[Any, ...]] = []
    told: list[tuple[str, str, str, int]] = []
    for c in ended:
        end = c.ending
        if end is None:
            continue
        rows.append((c.root_id, c.execution_id, end.status, end.body, end.type, end.at))
        if end.parent_id is not None:
            told.append((c.root_id, end.parent_id, c.execution_id, end.at))
    await _write(link, sql.ENDED, rows)
    await clear_inboxes(link, [(c.root_id, c.execution_id) for c in ended])
    await tell_parents(link, told)
    left = [
        (c.root_id, c.execution_id, c.ending.at)
        for c in ended
        if c.ending is not None and c.ending.with_children
    ]
    for (worker_id,) in await _write(link, sql.CANCEL_CHILDREN, left):
        written.bells.add(f"worker:{worker_id}" if worker_id is not None else "queue")
    for c in ended:
        if c.ending is not None and c.ending.key is not None:
            completed = c.ending.status is Status.COMPLETED
            execution = (c.root_id, c.execution_id)
            bell = await keyed.leave(
                link, c.ending.key, execution, lining, completed=completed, at=c.ending.at
            )
            written.bells |= {bell} if bell is not None else set()
    if ended:
        written.bells.add("ended")


async def clear_inboxes(link: Link, keys: Sequence[tuple[str, str]]) -> None:
    """Drop what came for executions, given by (root, id), that have ended."""
    await _write(link, sql.CLEAR_INBOX, keys)


async def tell_parents(link: Link, told: Sequence[tuple[str, str, str, int]]) -> None:
    """Put the ends of children into their parents' inboxes, and wake the parents that wait.

    Each is (root, parent, child, moment). The caller has locked the parents.
    """
    await _write(link, sql.TELL_PARENT, told)
    await _write(link, sql.WAKE_PARENT, [(root, parent, at) for root, parent, _, at in told])


async def lock(link: Link, keys: Sequence[tuple[str, str]]) -> dict[str, str | None]:
    """Lock executions, given by (root, id), in the order that everybody keeps; {id: worker}."""
    return {row[0]: row[1] for row in await _write(link, sql.LOCK, keys)}
