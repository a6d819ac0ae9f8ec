"""Answers to suspensions: each verb runs inside a transaction that the caller opened."""

from __future__ import annotations

from typing import Any

import apsw

from polos.core import suspension
from polos.core.model import Wait
from polos.core.sealed import references
from polos.core.suspension import Accepted, Answer, Held, Suspension
from polos.store import rows
from polos.store.lining import Lining
from polos.store.sqlite import blobs
from polos.store.sqlite.verbs import require

_OF_KEY = (
    f"SELECT {rows.WAIT_COLUMNS}, (SELECT body FROM inbox i WHERE i.root_id = w.root_id "
    f"AND i.execution_id = w.execution_id AND i.id = '{suspension.ITEM}/' || w.seq) "
    "FROM wait w WHERE root_id = ?1 AND kind = 'suspend' AND key = ?2 "
    "AND (execution_id = ?3 OR ?3 = ?1) ORDER BY execution_id, seq"
)
_CLOSED = (
    "SELECT execution_id, ok, body FROM step WHERE root_id = ?1 AND kind = 'suspend' "
    "AND key = ?2 AND ok IS NOT NULL AND (execution_id = ?3 OR ?3 = ?1) ORDER BY execution_id"
)
_ITEMS = (
    "SELECT id, body FROM inbox WHERE root_id = ? AND execution_id = ? AND id IN (?, ?) ORDER BY id"
)
_PUT = (
    "INSERT INTO inbox (root_id, execution_id, id, kind, ref, body, at) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_WAKE = (
    "UPDATE execution SET status = 'queued', wake_at = ? "
    "WHERE root_id = ? AND id = ? AND status = 'waiting' AND blocked_reason IS NULL"
)
_IS_OVER = (
    "SELECT w.key FROM wait w WHERE w.root_id = ?1 AND w.execution_id = ?2 AND w.seq = ?3 "
    "AND w.kind = 'suspend' AND w.due_at <= ?4"
)
_OPEN = (
    f"SELECT {', '.join(f'w.{name}' for name in rows.WAIT_COLUMNS.split(', '))}, "
    "e.workflow_id, e.root_workflow_id FROM wait w {index} "
    "CROSS JOIN execution e ON e.root_id = w.root_id AND e.id = w.execution_id "
    "WHERE w.kind = 'suspend' AND (w.due_at IS NULL OR w.due_at > ?1) {which}"
    "AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.root_id = w.root_id "
    f"AND i.execution_id = w.execution_id AND i.id = '{suspension.ITEM}/' || w.seq) "
    "ORDER BY w.at, w.execution_id, w.seq LIMIT ?2"
)


def resume(connection: apsw.Connection, answer: Answer, lining: Lining) -> Accepted:
    """Put an answer into the inbox that it is for, and wake who waits for it.

    Of a root, the suspensions of its whole tree are looked at. Without an open one the answer is
    kept for when the code suspends.
    """
    target = require(connection, answer.execution_id)
    suspension.check_workflow(target, answer)
    which = (target.root_id, answer.key, target.id)
    waits = [
        (rows.wait(each[:-1]), lining.open_closed(each[-1]))
        for each in connection.execute(_OF_KEY, which)
    ]
    wait = suspension.choose(target, answer, waits)
    over: list[tuple[str, bool, str | None]] = []
    if wait is None or wait.execution_id != target.id:
        closed: list[Any] = connection.execute(_CLOSED, which).fetchall()
        over = [(str(id_), bool(ok), lining.open_closed(body)) for id_, ok, body in closed]
    if wait is None or suspension.is_sent(answer, over):
        wait = None
        early = _item(connection, target.root_id, target.id, suspension.early_id(answer.key))
        held = suspension.to_keep(target, answer, over, lining.open_closed(early))
        id_, kind, owner = suspension.early_id(answer.key), suspension.EARLY, target
    else:
        id_, kind = suspension.item_id(wait.seq), suspension.ITEM
        wait.body = lining.open_closed(wait.body)
        items = [(each, lining.open_closed(body)) for each, body in _items(connection, wait)]
        held = suspension.to_store(wait, answer, items)
        owner = require(connection, wait.execution_id)
    if held is not None:
        row = (owner.root_id, owner.id, id_, kind, suspension.ref(answer.key))
        connection.execute(_PUT, (*row, lining.seal_answer(held.dump()), answer.at))
        if hashes := references(answer.data):
            blobs.refer(connection, owner.root_id, owner.id, hashes)
        if wait is not None:
            connection.execute(_WAKE, (answer.at, owner.root_id, owner.id))
    return Accepted(owner.root_id, owner.id, answer.key, answer.at, wait is None, owner.worker_id)


def _items(connection: apsw.Connection, wait: Wait) -> list[tuple[str, str | None]]:
    ids = (suspension.item_id(wait.seq), suspension.early_id(wait.key))
    found: list[Any] = connection.execute(
        _ITEMS, (wait.root_id, wait.execution_id, *ids)
    ).fetchall()
    return [(str(id_), body) for id_, body in found]


def _item(connection: apsw.Connection, root_id: str, execution_id: str, id_: str) -> str | None:
    found = connection.execute(_ITEMS, (root_id, execution_id, id_, id_)).fetchone()
    return None if found is None else str(found[1])


def expire(
    connection: apsw.Connection, root_id: str, execution_id: str, seq: int, now: int
) -> bool:
    """Let the time of a suspension be over, unless it has its answer; False if it is not due."""
    found = connection.execute(_IS_OVER, (root_id, execution_id, seq, now)).fetchone()
    if found is None:
        return False
    id_ = suspension.item_id(seq)
    if _item(connection, root_id, execution_id, id_) is None:
        held = Held("", now, "null", in_time=False)
        row = (root_id, execution_id, id_, suspension.ITEM, suspension.ref(str(found[0])))
        connection.execute(_PUT, (*row, held.dump(), now))
        connection.execute(_WAKE, (now, root_id, execution_id))
    return True


def suspensions(
    connection: apsw.Connection, filters: dict[str, str], limit: int, now: int
) -> list[Suspension]:
    """List open suspensions, the oldest first; `filters` are columns with their values."""
    which = "".join(f"AND {_COLUMNS[name]} = ?{n} " for n, name in enumerate(filters, 3))
    index = "" if "root_id" in filters else "INDEXED BY wait_suspended"
    found = connection.execute(
        _OPEN.format(index=index, which=which), (now, limit, *filters.values())
    )
    return [Suspension(rows.wait(each[:-2]), each[-2], each[-1]) for each in found]


_COLUMNS = {
    "workflow_id": "e.workflow_id",
    "root_id": "w.root_id",
    "execution_id": "w.execution_id",
}
