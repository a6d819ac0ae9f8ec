"""State that belongs to a key: who may run with it, what it is left as, and what people set.

Whoever calls this has locked the executions that it names; then it locks keys, in their order. The
execution that comes next is locked behind its key: two that meet there the wrong way round are told
apart by the server, and one of them is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from polos.core import delta, keys
from polos.core.keyed import Keyed, KeyedState
from polos.core.keys import Key
from polos.core.model import Change, Execution, Start, StateEntry
from polos.errors import ConflictError
from polos.store import rows, values
from polos.store.lining import Lining
from polos.store.postgres import clear, indexing, queries
from polos.store.postgres.links import Link

_OF_KEY = "workflow_id = $1 AND state_key = $2"
_READ = f"SELECT {rows.KEYED_COLUMNS} FROM {{s}}.keyed_state WHERE {_OF_KEY}"
MAKE = (
    "INSERT INTO {s}.keyed_state (workflow_id, state_key, version, last, rollback) "
    "SELECT k.workflow_id, k.state_key, 0, 0, false FROM unnest($1::text[], $2::text[]) "
    "k (workflow_id, state_key) ORDER BY 1, 2 ON CONFLICT DO NOTHING"
)
LOCK = (
    "SELECT 1 FROM unnest($1::text[], $2::text[]) k (workflow_id, state_key) "
    "JOIN {s}.keyed_state s ON s.workflow_id = k.workflow_id AND s.state_key = k.state_key "
    "ORDER BY s.workflow_id, s.state_key FOR UPDATE OF s"
)
FIRST = (
    "SELECT root_id, execution_id, running FROM {s}.key_queue "
    f"WHERE {_OF_KEY} ORDER BY turn LIMIT 1"
)
_COUNT = (
    f"UPDATE {{s}}.keyed_state SET last = last + 1, rollback = $3 WHERE {_OF_KEY} RETURNING last"
)
_ENTER = (
    "INSERT INTO {s}.key_queue (workflow_id, state_key, turn, root_id, execution_id, running) "
    "VALUES ($1, $2, $3, $4, $5, $6)"
)
LEAVE = "DELETE FROM {s}.key_queue WHERE execution_id = $1 RETURNING running"
_LEFT = f"UPDATE {{s}}.keyed_state SET execution_id = $3 WHERE {_OF_KEY} RETURNING rollback"
_COMMIT = (
    "UPDATE {s}.keyed_state SET state = $3, schema_version = $4, updated_at = $5, "
    f"version = version + 1 WHERE {_OF_KEY}"
)
_NEXT = f"UPDATE {{s}}.key_queue SET running = true WHERE {_OF_KEY} AND execution_id = $3"
_WAKE = (
    "UPDATE {s}.execution SET wake_at = $3 WHERE root_id = $1 AND id = $2 AND status = 'queued' "
    "RETURNING worker_id"
)
_BEGIN_WITH = (
    f"INSERT INTO {{s}}.state ({values.STATE_COLUMNS}) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) "
    "ON CONFLICT (root_id, execution_id, version) DO UPDATE SET body = excluded.body, "
    "schema_version = excluded.schema_version"
)
_HOLD = "UPDATE {s}.execution SET state_key = $3 WHERE root_id = $1 AND id = $2"
_QUEUE_AGAIN = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = NULL, worker_id = NULL, attempt = 0, "
    "started_at = NULL WHERE root_id = $1 AND id = $2"
)
_SET = (
    "UPDATE {s}.keyed_state SET version = version + 1, state = $3, schema_version = $4, "
    f"updated_at = $5, execution_id = NULL WHERE {_OF_KEY}"
)
_DELETE = f"DELETE FROM {{s}}.keyed_state WHERE {_OF_KEY}"
_KEYS = (
    "SELECT state_key FROM {s}.keyed_state WHERE workflow_id = $1 AND state_key > $2 "
    "AND state_key >= $3 AND ($4::text IS NULL OR state_key < $4) AND state IS NOT NULL "
    "ORDER BY state_key LIMIT $5"
)
_EARLIER = (
    "SELECT 1 FROM {s}.execution e WHERE e.workflow_id = $1 AND e.id < $2 AND e.state_key IS NULL "
    "AND e.deployment_id IS NOT DISTINCT FROM $3 AND e.forked_from IS NULL AND e.generation = 0 "
    "AND NOT EXISTS (SELECT 1 FROM {s}.step s WHERE s.root_id = e.root_id "
    "AND s.execution_id = e.id) AND "
)
# Of what has not ended, by the indexes of what may be claimed and of what a worker owns.
_PRECEDED = (
    f"SELECT EXISTS ({_EARLIER} e.wake_at IS NOT NULL AND e.status = 'queued') OR EXISTS "
    f"({_EARLIER} e.completed_at IS NULL AND e.status = 'running' AND e.worker_id IN "
    "(SELECT id FROM {s}.worker WHERE stopped_at IS NULL))"
)
_BEGAN = "SELECT started_at IS NOT NULL FROM {s}.execution WHERE root_id = $1 AND id = $2"
REFS_FROM = (
    "INSERT INTO {s}.blob_ref (root_id, execution_id, hash) SELECT $1, $2, hash "
    "FROM {s}.blob_ref WHERE root_id = $3 AND execution_id = $4 ORDER BY hash "
    "ON CONFLICT DO NOTHING"
)
REFS_GONE = (
    "DELETE FROM {s}.blob_ref WHERE root_id = $1 AND execution_id = $2 "
    "AND NOT hash = ANY($3::text[])"
)
STATEMENTS = (
    MAKE,
    LOCK,
    FIRST,
    _COUNT,
    _ENTER,
    LEAVE,
    _LEFT,
    _COMMIT,
    _NEXT,
    _WAKE,
    _BEGIN_WITH,
    REFS_FROM,
    REFS_GONE,
)
"""What runs inside a batch, for the test that reads them."""


async def lock(link: Link, wanted: Iterable[Key]) -> None:
    """Lock the rows of keys, in the order that everybody keeps; makes those that are missing."""
    found = sorted(set(wanted))
    if found:
        arrays = queries.columns(found, 2)
        await link.fetch(MAKE, *arrays)
        await link.fetch(LOCK, *arrays)


async def read(link: Link, key: Key, lining: Lining) -> KeyedState | None:
    """Read the state of a key as code has it; None if it never had any."""
    found = await _read(link, key)
    if found is not None:
        found.state = await clear.text(link, lining, found.state)
    return found


async def _read(link: Link, key: Key) -> KeyedState | None:
    found = await link.row(_READ, *key)
    return None if found is None or found[3] is None else KeyedState(*found)


async def state_keys(
    link: Link, workflow_id: str, prefix: str, after: str, limit: int
) -> list[str]:
    """Read keys that have state, in the order of their bytes."""
    found = await link.fetch(_KEYS, workflow_id, after, prefix, keys.behind(prefix), limit)
    return [key for (key,) in found]


async def write(
    link: Link,
    key: Key,
    entry: StateEntry | None,
    if_version: int | None,
    lining: Lining,
    *,
    again: bool,
) -> KeyedState | None:
    """Set the state of a key, or remove it (None); returns what was there before."""
    await lock(link, [key])
    before = await read(link, key, lining)
    if again and entry is not None and before is not None:
        sent = (entry.body, entry.schema_version, entry.at, None)
        if sent == (before.state, before.schema_version, before.updated_at, before.execution_id):
            return before  # it was done, and the answer was lost
    holder = await link.row(FIRST, *key)
    keys.check_settable(key, before, None if holder is None else holder[1], if_version)
    if entry is None:
        await link.fetch(_DELETE, *key)
        await link.fetch(REFS_GONE, *keys.owner(key), [])
    else:
        body = await _store(link, key, entry, before, lining)
        await link.fetch(_SET, *key, body, entry.schema_version, entry.at)
    return before


async def _store(
    link: Link, key: Key, entry: StateEntry, before: KeyedState | None, lining: Lining
) -> str:
    """Return the text that is stored of a key's state; the key refers to its blobs from here."""
    owner = keys.owner(key)
    lined = await clear.line(link, lining, Change.of_state(owner, entry))
    if lined.refs or (before is not None and lining.may_refer(before.state)):
        await link.fetch(REFS_GONE, *owner, list(lined.refs))
    return lined.states[0].body


async def place(link: Link, start: Start, keyed: Keyed, lining: Lining) -> ConflictError | None:
    """Let a start begin with the state of its key or wait for others; its key is locked."""
    key = (start.workflow_id, keyed.key)
    state = await _read(link, key)
    first = await link.row(FIRST, *key) is None
    refused = keys.why_not(key, keyed, state, first=first)
    if refused is None:
        keys.place(start, state, first=first)
        if state is not None and first:
            text = await clear.text(link, lining, state.state)
            keys.leave_to_claim(start, is_clear=text == state.state)
            fields = delta.split(text)
            start.index = [*start.index, *await indexing.of_state(link, key[0], fields)]
            if lining.may_refer(text):
                await link.fetch(REFS_FROM, start.root_id, start.id, *keys.owner(key))
    return refused


async def enter(link: Link, key: Key, keyed: Keyed, execution: Key, *, first: bool) -> None:
    """Give an execution its place in the queue of its key, which is locked."""
    turn = (await link.fetch(_COUNT, *key, keyed.rollback))[0][0]
    await link.fetch(_ENTER, *key, turn, *execution, first)


async def enter_late(link: Link, record: Execution, keyed: Keyed, lining: Lining) -> bool:
    """Let an execution that was started without its key take its place; says if it may run."""
    key = (record.workflow_id, keyed.key)
    await lock(link, [key])
    state = await _read(link, key)
    first = await link.row(FIRST, *key) is None
    execution = (record.root_id, record.id)
    await link.fetch(_HOLD, *execution, keyed.key)
    await enter(link, key, keyed, execution, first=first)
    if first:
        await _begin_with(link, key, execution, state, lining)
    else:
        await link.fetch(_QUEUE_AGAIN, *execution)
    return first


async def is_preceded(link: Link, workflow_id: str, execution_id: str, deployment: Any) -> bool:
    """Say whether one that was started earlier, without its key too, has yet to take its place."""
    return bool((await link.fetch(_PRECEDED, workflow_id, execution_id, deployment))[0][0])


async def carry(link: Link, key: Key, execution: Key) -> None:
    """Let an execution from elsewhere, with its own state, hold a key that has none here."""
    await lock(link, [key])
    holder = await link.row(FIRST, *key)
    keys.check_free(key, await _read(link, key), None if holder is None else holder[1])
    await enter(link, key, Keyed(key[1]), execution, first=True)


async def _begin_with(
    link: Link, key: Key, execution: Key, state: KeyedState | None, lining: Lining
) -> None:
    if state is not None:
        await link.fetch(_BEGIN_WITH, *values.state(*execution, keys.first_entry(state)))
        text = await clear.text(link, lining, state.state)
        if lining.may_refer(text):
            await link.fetch(REFS_FROM, *execution, *keys.owner(key))
        found_by = await indexing.of_state(link, key[0], delta.split(text))
        await indexing.write(link, [(*execution, each) for each in found_by])


async def check_again(link: Link, record: Execution, verb: str) -> bool:
    """Raise `ConflictError` if the key of an ended execution moved on; False: it has none.

    Locks the key.
    """
    if record.state_key is None:
        return False
    key = (record.workflow_id, record.state_key)
    found = await link.row(f"{_READ} FOR UPDATE", *key)
    holder = await link.row(FIRST, *key)
    last = None if found is None else found[6]
    keys.check_again(record, last, None if holder is None else holder[1], verb)
    return True


async def enter_again(link: Link, record: Execution, verb: str) -> None:
    """Let an execution that had ended hold its key again; `ConflictError` if that moved on."""
    if record.state_key is None or not await check_again(link, record, verb):
        return
    key = (record.workflow_id, record.state_key)
    rollback = (await link.fetch(_LEFT, *key, record.id))[0][0]
    keyed = Keyed(record.state_key, rollback=rollback)
    await enter(link, key, keyed, (record.root_id, record.id), first=True)


async def leave(
    link: Link, key: Key, execution: Key, lining: Lining, *, completed: bool, at: int
) -> str | None:
    """An execution has ended: its state becomes that of the key, and the next one may run.

    The key is locked. Returns the bell to ring for the next one.
    """
    held = await link.row(LEAVE, execution[1])
    if held is None:
        return None
    if held[0]:
        rollback = (await link.fetch(_LEFT, *key, execution[1]))[0][0]
        began = completed or (await link.fetch(_BEGAN, *execution))[0][0]
        if began and (completed or not rollback):
            await _commit(link, key, execution, lining, at)
    following = await link.row(FIRST, *key)
    if following is None or following[2]:
        return None
    successor = (following[0], following[1])
    await link.fetch(_NEXT, *key, successor[1])
    found: list[Any] = await link.fetch(_WAKE, *successor, at)
    await _begin_with(link, key, successor, await _read(link, key), lining)
    worker_id = found[0][0] if found else None
    return "queue" if worker_id is None else f"worker:{worker_id}"


async def _commit(link: Link, key: Key, execution: Key, lining: Lining, at: int) -> None:
    entries = await clear.states(link, lining, execution)
    if not entries:
        return
    body = delta.document(delta.replay(each.jump or each.body for each in entries))
    entry = StateEntry(0, None, at, body, schema_version=entries[-1].schema_version)
    before = await read(link, key, lining)
    if before is None or (before.state, before.schema_version) != (body, entry.schema_version):
        stored = await _store(link, key, entry, before, lining)
        await link.fetch(_COMMIT, *key, stored, entry.schema_version, at)
