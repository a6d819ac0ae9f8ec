"""State that belongs to a key: who may run with it, what it is left as, and what people set."""

from __future__ import annotations

import json

import apsw

from polos.core import delta, keys
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import Change, Execution, Start, StateEntry
from polos.errors import ConflictError
from polos.store import rows, values
from polos.store.lining import Lining
from polos.store.sqlite import clear, indexing

_READ = f"SELECT {rows.KEYED_COLUMNS} FROM keyed_state WHERE workflow_id = ? AND state_key = ?"
_FIRST = (
    "SELECT root_id, execution_id, running FROM key_queue WHERE workflow_id = ? AND state_key = ? "
    "ORDER BY turn LIMIT 1"
)
_COUNT = (
    "INSERT INTO keyed_state (workflow_id, state_key, version, last, rollback) "
    "VALUES (?, ?, 0, 1, ?) ON CONFLICT (workflow_id, state_key) DO UPDATE "
    "SET last = last + 1, rollback = excluded.rollback RETURNING last"
)
_ENTER = (
    "INSERT INTO key_queue (workflow_id, state_key, turn, root_id, execution_id, running) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)
_LEAVE = "DELETE FROM key_queue WHERE execution_id = ? RETURNING running"
_LEFT = "UPDATE keyed_state SET execution_id = ? WHERE workflow_id = ? AND state_key = ?"
_COMMIT = (
    "UPDATE keyed_state SET state = ?, schema_version = ?, updated_at = ?, "
    "version = version + 1 WHERE workflow_id = ? AND state_key = ?"
)
_ROLLS_BACK = "SELECT rollback FROM keyed_state WHERE workflow_id = ? AND state_key = ?"
_NEXT = (
    "UPDATE key_queue SET running = 1 WHERE workflow_id = ? AND state_key = ? AND execution_id = ?"
)
_WAKE = "UPDATE execution SET wake_at = ? WHERE root_id = ? AND id = ? AND status = 'queued'"
_BEGIN_WITH = (
    f"INSERT INTO state ({values.STATE_COLUMNS}) VALUES ({', '.join('?' * 10)}) "
    "ON CONFLICT (root_id, execution_id, version) DO UPDATE SET body = excluded.body, "
    "schema_version = excluded.schema_version"
)
_HOLD = "UPDATE execution SET state_key = ? WHERE root_id = ? AND id = ?"
_QUEUE_AGAIN = (
    "UPDATE execution SET status = 'queued', wake_at = NULL, worker_id = NULL, attempt = 0, "
    "started_at = NULL WHERE root_id = ? AND id = ?"
)
_PRECEDED = (
    "SELECT EXISTS (SELECT 1 FROM execution e INDEXED BY execution_open "
    "WHERE e.status IN ('queued', 'running') AND e.status IN ('queued', 'running', 'waiting') "
    "AND e.workflow_id = ? AND e.id < ? AND e.state_key IS NULL AND e.deployment_id IS ? "
    "AND e.forked_from IS NULL AND e.generation = 0 AND NOT EXISTS "
    "(SELECT 1 FROM step s WHERE s.root_id = e.root_id AND s.execution_id = e.id))"
)
_SET = (
    "INSERT INTO keyed_state (workflow_id, state_key, version, state, schema_version, updated_at, "
    "last, rollback) VALUES (?, ?, 1, ?, ?, ?, 0, 0) ON CONFLICT (workflow_id, state_key) "
    "DO UPDATE SET version = version + 1, state = excluded.state, "
    "schema_version = excluded.schema_version, updated_at = excluded.updated_at, "
    "execution_id = NULL"
)
_DELETE = "DELETE FROM keyed_state WHERE workflow_id = ? AND state_key = ?"
_KEYS = (
    "SELECT state_key FROM keyed_state WHERE workflow_id = ?1 AND state_key > ?2 "
    "AND state_key >= ?3 AND (?4 IS NULL OR state_key < ?4) AND state IS NOT NULL "
    "ORDER BY state_key LIMIT ?5"
)

_REFS_FROM = (
    "INSERT INTO blob_ref (root_id, execution_id, hash) SELECT ?, ?, hash FROM blob_ref "
    "WHERE root_id = ? AND execution_id = ? ON CONFLICT DO NOTHING"
)
_REFS_GONE = (
    "DELETE FROM blob_ref WHERE root_id = ? AND execution_id = ? "
    "AND hash NOT IN (SELECT value FROM json_each(?))"
)

Key = tuple[str, str]


def read(connection: apsw.Connection, key: Key, lining: Lining) -> KeyedState | None:
    """Read the state of a key as code has it; None if it never had any."""
    found = _read(connection, key)
    if found is not None:
        found.state = clear.text(connection, lining, found.state)
    return found


def _read(connection: apsw.Connection, key: Key) -> KeyedState | None:
    found = next(iter(connection.execute(_READ, key)), None)
    return None if found is None or found[3] is None else KeyedState(*found)


def state_keys(
    connection: apsw.Connection, workflow_id: str, prefix: str, after: str, limit: int
) -> list[str]:
    """Return keys that have state, in the order of their bytes."""
    arguments = (workflow_id, after, prefix, keys.behind(prefix), limit)
    return [str(key) for (key,) in connection.execute(_KEYS, arguments)]


def write(
    connection: apsw.Connection,
    key: Key,
    entry: StateEntry | None,
    if_version: int | None,
    lining: Lining,
) -> KeyedState | None:
    """Set the state of a key, or remove it (None); returns what was there before."""
    before = read(connection, key, lining)
    holder = next(iter(connection.execute(_FIRST, key)), None)
    keys.check_settable(key, before, None if holder is None else holder[1], if_version)
    if entry is None:
        connection.execute(_DELETE, key)
        connection.execute(_REFS_GONE, (*keys.owner(key), "[]"))
    else:
        body = _store(connection, key, entry, before, lining)
        connection.execute(_SET, (*key, body, entry.schema_version, entry.at))
    return before


def _store(
    connection: apsw.Connection,
    key: Key,
    entry: StateEntry,
    before: KeyedState | None,
    lining: Lining,
) -> str:
    """Return the text that is stored of a key's state; the key refers to its blobs from here."""
    owner = keys.owner(key)
    lined = clear.line(connection, lining, Change.of_state(owner, entry))
    if lined.refs or (before is not None and lining.may_refer(before.state)):
        connection.execute(_REFS_GONE, (*owner, json.dumps(list(lined.refs))))
    return lined.states[0].body


def start(
    connection: apsw.Connection, start: Start, keyed: Keyed, lining: Lining
) -> ConflictError | None:
    """Give a start, which is not written yet, its place in the queue of its key and its state."""
    key = (start.workflow_id, keyed.key)
    state = _read(connection, key)
    first = next(iter(connection.execute(_FIRST, key)), None) is None
    refused = keys.why_not(key, keyed, state, first=first)
    if refused is None:
        keys.place(start, state, first=first)
        if state is not None and first:
            text = clear.text(connection, lining, state.state)
            keys.leave_to_claim(start, is_clear=text == state.state)
            found_by = indexing.of_state(connection, start.workflow_id, delta.split(text))
            start.index = [*start.index, *found_by]
            if lining.may_refer(text):
                connection.execute(_REFS_FROM, (start.root_id, start.id, *keys.owner(key)))
        _enter(connection, key, keyed, (start.root_id, start.id), first=first)
    return refused


def _enter(
    connection: apsw.Connection, key: Key, keyed: Keyed, execution: Key, *, first: bool
) -> None:
    turn = next(iter(connection.execute(_COUNT, (*key, keyed.rollback))))[0]
    connection.execute(_ENTER, (*key, turn, *execution, first))


def enter(connection: apsw.Connection, record: Execution, keyed: Keyed, lining: Lining) -> bool:
    """Let an execution that was started without its key take its place; says if it may run."""
    key = (record.workflow_id, keyed.key)
    state = _read(connection, key)
    first = next(iter(connection.execute(_FIRST, key)), None) is None
    execution = (record.root_id, record.id)
    connection.execute(_HOLD, (keyed.key, *execution))
    _enter(connection, key, keyed, execution, first=first)
    if first:
        _begin_with(connection, key, execution, state, lining)
    else:
        connection.execute(_QUEUE_AGAIN, execution)
    return first


def is_preceded(
    connection: apsw.Connection, workflow_id: str, execution_id: str, deployment_id: str | None
) -> bool:
    """Say whether one that was started earlier, without its key too, has yet to take its place."""
    given = (workflow_id, execution_id, deployment_id)
    return any(found for (found,) in connection.execute(_PRECEDED, given))


def carry(connection: apsw.Connection, key: Key, execution: Key) -> None:
    """Let an execution from elsewhere, with its own state, hold a key that has none here."""
    holder = next(iter(connection.execute(_FIRST, key)), None)
    keys.check_free(key, _read(connection, key), None if holder is None else holder[1])
    _enter(connection, key, Keyed(key[1]), execution, first=True)


def _begin_with(
    connection: apsw.Connection,
    key: Key,
    execution: Key,
    state: KeyedState | None,
    lining: Lining,
) -> None:
    if state is not None:
        entry = keys.first_entry(state)
        connection.execute(_BEGIN_WITH, values.state(*execution, entry))
        text = clear.text(connection, lining, state.state)
        if lining.may_refer(text):
            connection.execute(_REFS_FROM, (*execution, *keys.owner(key)))
        found_by = indexing.of_state(connection, key[0], delta.split(text))
        indexing.write(connection, execution, found_by)


def check_again(connection: apsw.Connection, record: Execution, verb: str) -> bool:
    """Raise `ConflictError` if the key of an ended execution moved on; False: it has none."""
    if record.state_key is None:
        return False
    key = (record.workflow_id, record.state_key)
    row = next(iter(connection.execute(_READ, key)), None)
    holder = next(iter(connection.execute(_FIRST, key)), None)
    last = None if row is None else row[6]
    keys.check_again(record, last, None if holder is None else holder[1], verb)
    return True


def enter_again(connection: apsw.Connection, record: Execution, verb: str) -> None:
    """Let an execution that had ended hold its key again; `ConflictError` if that moved on."""
    if record.state_key is None or not check_again(connection, record, verb):
        return
    key = (record.workflow_id, record.state_key)
    rollback = next(iter(connection.execute(_ROLLS_BACK, key)))[0]
    again = Keyed(record.state_key, rollback=bool(rollback))
    _enter(connection, key, again, (record.root_id, record.id), first=True)


def leave(
    connection: apsw.Connection,
    key: Key,
    execution: Key,
    lining: Lining,
    *,
    completed: bool,
    at: int,
) -> None:
    """An execution has ended: its state becomes that of the key, and the next one may run."""
    held = next(iter(connection.execute(_LEAVE, (execution[1],))), None)
    if held is None:
        return
    if held[0]:
        rollback = next(iter(connection.execute(_ROLLS_BACK, key)))[0]
        began = completed or _began(connection, execution)
        if began and (completed or not rollback):
            _commit(connection, key, execution, lining, at)
        connection.execute(_LEFT, (execution[1], *key))
    following = next(iter(connection.execute(_FIRST, key)), None)
    if following is None or following[2]:
        return
    connection.execute(_NEXT, (*key, following[1]))
    connection.execute(_WAKE, (at, following[0], following[1]))
    successor = (following[0], following[1])
    _begin_with(connection, key, successor, _read(connection, key), lining)


def _began(connection: apsw.Connection, execution: Key) -> bool:
    found = connection.execute(
        "SELECT started_at IS NOT NULL FROM execution WHERE root_id = ? AND id = ?",
        execution,
    )
    return bool(next(iter(found), (0,))[0])


def _commit(connection: apsw.Connection, key: Key, execution: Key, lining: Lining, at: int) -> None:
    entries = clear.states(connection, lining, execution)
    if not entries:
        return
    body = delta.document(delta.replay(each.jump or each.body for each in entries))
    entry = StateEntry(0, None, at, body, schema_version=entries[-1].schema_version)
    before = read(connection, key, lining)
    if before is None or (before.state, before.schema_version) != (body, entry.schema_version):
        stored = _store(connection, key, entry, before, lining)
        connection.execute(_COMMIT, (stored, entry.schema_version, at, *key))
