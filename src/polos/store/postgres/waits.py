"""Answers to suspensions: each verb runs inside a transaction that the caller opened.

What an answer does is decided under the lock of the execution that it is for, which who suspends
holds as well. An answer that nobody asks for yet locks all of the tree that has not ended.
"""

from __future__ import annotations

from typing import Any

from polos.core import suspension
from polos.core.model import Execution, Wait
from polos.core.sealed import references
from polos.core.suspension import Accepted, Answer, Held, Suspension
from polos.store import rows
from polos.store.commands import Apart
from polos.store.lining import Lining
from polos.store.postgres import batch, blobs
from polos.store.postgres.links import Link
from polos.store.postgres.verbs import TREE, require

_OF_KEY = (
    f"SELECT {rows.WAIT_COLUMNS}, (SELECT body FROM {{s}}.inbox i WHERE i.root_id = w.root_id "
    f"AND i.execution_id = w.execution_id AND i.id = '{suspension.ITEM}/' || w.seq) "
    "FROM {s}.wait w WHERE root_id = $1 AND kind = 'suspend' "
    "AND key = $2 AND (execution_id = $3 OR $3 = $1) ORDER BY execution_id, seq"
)
_CLOSED = (
    "SELECT execution_id, ok, body FROM {s}.step WHERE root_id = $1 AND kind = 'suspend' "
    "AND key = $2 AND ok IS NOT NULL AND (execution_id = $3 OR $3 = $1) ORDER BY execution_id"
)
_ITEMS = (
    "SELECT id, body FROM {s}.inbox WHERE root_id = $1 AND execution_id = $2 "
    "AND id = ANY($3::text[]) ORDER BY id"
)
_PUT = (
    "INSERT INTO {s}.inbox (root_id, execution_id, id, kind, ref, body, at) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7)"
)
_WAKE = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = $3 "
    "WHERE root_id = $1 AND id = $2 AND status = 'waiting' AND blocked_reason IS NULL"
)
_IS_OVER = (
    "SELECT key FROM {s}.wait WHERE root_id = $1 AND execution_id = $2 AND seq = $3 "
    "AND kind = 'suspend' AND due_at <= $4"
)
# $1 now, $2 limit, then what the list is narrowed to.
OPEN = (
    f"SELECT {', '.join(f'w.{name}' for name in rows.WAIT_COLUMNS.split(', '))}, "
    "e.workflow_id, e.root_workflow_id FROM {s}.wait w "
    "JOIN {s}.execution e ON e.root_id = w.root_id AND e.id = w.execution_id "
    "WHERE w.kind = 'suspend' AND (w.due_at IS NULL OR w.due_at > $1) "
    "AND NOT EXISTS (SELECT 1 FROM {s}.inbox i WHERE i.root_id = w.root_id "
    f"AND i.execution_id = w.execution_id AND i.id = '{suspension.ITEM}/' || w.seq) "
)
_ORDER = "ORDER BY w.at, w.execution_id, w.seq LIMIT $2"
_COLUMNS = {
    "workflow_id": "e.workflow_id",
    "root_id": "w.root_id",
    "execution_id": "w.execution_id",
}


async def resume(link: Link, answer: Answer, lining: Lining) -> Accepted:
    """Put an answer into the inbox that it is for, and wake who waits for it.

    Of a root, the suspensions of its whole tree are looked at. Without an open one the answer is
    kept for when the code suspends.
    """
    target = await require(link, answer.execution_id)
    suspension.check_workflow(target, answer)
    wait = await _lock_asker(link, target, answer, lining)
    over: list[tuple[str, bool, str | None]] = []
    if wait is None or wait.execution_id != target.id:
        found = await link.fetch(_CLOSED, target.root_id, answer.key, target.id)
        over = [(each[0], each[1], lining.open_closed(each[2])) for each in found]
    if wait is None or suspension.is_sent(answer, over):
        wait = None
        target = await require(link, target.id)  # as it is under the lock
        id_, kind, owner = suspension.early_id(answer.key), suspension.EARLY, target
        kept = await _items(link, target.root_id, target.id, [id_])
        early = lining.open_closed(kept[0][1]) if kept else None
        held = suspension.to_keep(target, answer, over, early)
    else:
        id_, kind = suspension.item_id(wait.seq), suspension.ITEM
        owner = await require(link, wait.execution_id)
        ids = [id_, suspension.early_id(wait.key)]
        items = await _items(link, wait.root_id, wait.execution_id, ids)
        wait.body = lining.open_closed(wait.body)
        items = [(each, lining.open_closed(body)) for each, body in items]
        held = suspension.to_store(wait, answer, items)
    if held is not None:
        row = (owner.root_id, owner.id, id_, kind, suspension.ref(answer.key))
        await link.fetch(_PUT, *row, lining.seal_answer(held.dump()), answer.at)
        if hashes := references(answer.data):
            await blobs.write(link, [Apart(owner.root_id, owner.id, [*hashes], (), answer.at)])
        if wait is not None:
            await link.fetch(_WAKE, owner.root_id, owner.id, answer.at)
    return Accepted(owner.root_id, owner.id, answer.key, answer.at, wait is None, owner.worker_id)


async def _lock_asker(link: Link, target: Execution, answer: Answer, lining: Lining) -> Wait | None:
    """Lock who suspended with the answer's key, and return its wait; or all who might yet."""
    locked: set[tuple[str, str]] = set()
    while True:
        found = await link.fetch(_OF_KEY, target.root_id, answer.key, target.id)
        waits = [(rows.wait(tuple(each)[:-1]), lining.open_closed(each[-1])) for each in found]
        wait = suspension.choose(target, answer, waits)
        if wait is not None:
            needed = {(wait.root_id, wait.execution_id)}
        else:
            tree = await link.fetch(TREE, target.root_id, target.id)
            needed = {(root_id, id_) for root_id, id_, _ in tree} | {(target.root_id, target.id)}
        if needed <= locked:
            return wait
        await batch.lock(link, sorted(needed))
        locked |= needed


async def _items(
    link: Link, root_id: str, execution_id: str, ids: list[str]
) -> list[tuple[str, str | None]]:
    return [(each[0], each[1]) for each in await link.fetch(_ITEMS, root_id, execution_id, ids)]


async def expire(link: Link, root_id: str, execution_id: str, seq: int, now: int) -> bool:
    """Let the time of a suspension be over, unless it has its answer; False if it is not due."""
    await batch.lock(link, [(root_id, execution_id)])
    found = await link.row(_IS_OVER, root_id, execution_id, seq, now)
    if found is None:
        return False
    id_ = suspension.item_id(seq)
    if not await _items(link, root_id, execution_id, [id_]):
        held = Held("", now, "null", in_time=False)
        row = (root_id, execution_id, id_, suspension.ITEM, suspension.ref(found[0]))
        await link.fetch(_PUT, *row, held.dump(), now)
        await link.fetch(_WAKE, root_id, execution_id, now)
    return True


async def suspensions(
    link: Link, filters: dict[str, str], limit: int, now: int
) -> list[Suspension]:
    """List open suspensions, the oldest first; `filters` are columns with their values."""
    which = "".join(f"AND {_COLUMNS[name]} = ${n} " for n, name in enumerate(filters, 3))
    found: list[Any] = await link.fetch(OPEN + which + _ORDER, now, limit, *filters.values())
    listed = [tuple(each) for each in found]
    return [Suspension(rows.wait(each[:-2]), each[-2], each[-1]) for each in listed]
