"""State that belongs to a key: who may run with it, what it is left as, and what people set."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from polos.core import delta, keys
from polos.core.keyed import Keyed, KeyedState
from polos.core.model import Execution, Start, StateEntry
from polos.errors import ConflictError
from polos.store import rows, values
from polos.store.protocol import VERSION_MAX
from polos.store.sqlite import indexing, queries

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
    "UPDATE keyed_state SET state = ?1, schema_version = ?2, updated_at = ?3, "
    "version = version + 1 WHERE workflow_id = ?4 AND state_key = ?5 "
    "AND (state IS NOT ?1 OR schema_version IS NOT ?2)"
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

Key = tuple[str, str]


def read(connection: apsw.Connection, key: Key) -> KeyedState | None:
    """Read the state of a key; None if it never had any."""
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
) -> KeyedState | None:
    """Set the state of a key, or remove it (None); returns what was there before."""
    before = read(connection, key)
    holder = next(iter(connection.execute(_FIRST, key)), None)
    keys.check_settable(key, before, None if holder is None else holder[1], if_version)
    if entry is None:
        connection.execute(_DELETE, key)
    else:
        connection.execute(_SET, (*key, entry.body, entry.schema_version, entry.at))
    return before


def start(connection: apsw.Connection, start: Start, keyed: Keyed) -> ConflictError | None:
    """Give a start, which is not written yet, its place in the queue of its key and its state."""
    key = (start.workflow_id, keyed.key)
    state = read(connection, key)
    first = next(iter(connection.execute(_FIRST, key)), None) is None
    refused = keys.why_not(key, keyed, state, first=first)
    if refused is None:
        keys.place(start, state, first=first)
        if state is not None and first:
            fields = delta.split(state.state)
            found_by = indexing.of_state(connection, start.workflow_id, fields)
            start.index = [*start.index, *found_by]
        _enter(connection, key, keyed, (start.root_id, start.id), first=first)
    return refused


def _enter(
    connection: apsw.Connection, key: Key, keyed: Keyed, execution: Key, *, first: bool
) -> None:
    turn = next(iter(connection.execute(_COUNT, (*key, keyed.rollback))))[0]
    connection.execute(_ENTER, (*key, turn, *execution, first))


def enter(connection: apsw.Connection, record: Execution, keyed: Keyed) -> bool:
    """Let an execution that was started without its key take its place; says if it may run."""
    key = (record.workflow_id, keyed.key)
    state = read(connection, key)
    first = next(iter(connection.execute(_FIRST, key)), None) is None
    execution = (record.root_id, record.id)
    connection.execute(_HOLD, (keyed.key, *execution))
    _enter(connection, key, keyed, execution, first=first)
    if first:
        _begin_with(connection, key[0], execution, state)
    else:
        connection.execute(_QUEUE_AGAIN, execution)
    return first


def _begin_with(
    connection: apsw.Connection, workflow_id: str, execution: Key, state: KeyedState | None
) -> None:
    if state is not None:
        entry = keys.first_entry(state)
        connection.execute(_BEGIN_WITH, values.state(*execution, entry))
        found_by = indexing.of_state(connection, workflow_id, delta.split(state.state))
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
    connection: apsw.Connection, key: Key, execution: Key, *, completed: bool, at: int
) -> None:
    """An execution has ended: its state becomes that of the key, and the next one may run."""
    held = next(iter(connection.execute(_LEAVE, (execution[1],))), None)
    if held is None:
        return
    if held[0]:
        rollback = next(iter(connection.execute(_ROLLS_BACK, key)))[0]
        began = completed or _began(connection, execution)
        if began and (completed or not rollback):
            _commit(connection, key, execution, at)
        connection.execute(_LEFT, (execution[1], *key))
    following = next(iter(connection.execute(_FIRST, key)), None)
    if following is None or following[2]:
        return
    connection.execute(_NEXT, (*key, following[1]))
    connection.execute(_WAKE, (at, following[0], following[1]))
    _begin_with(connection, key[0], (following[0], following[1]), read(connection, key))


def _began(connection: apsw.Connection, execution: Key) -> bool:
    found = connection.execute(
        "SELECT started_at IS NOT NULL FROM execution WHERE root_id = ? AND id = ?",
        execution,
    )
    return bool(next(iter(found), (0,))[0])


def _commit(connection: apsw.Connection, key: Key, execution: Key, at: int) -> None:
    entries: Sequence[StateEntry] = queries.states_up_to(connection, *execution, VERSION_MAX)
    if entries:
        body = delta.document(delta.replay(each.jump or each.body for each in entries))
        connection.execute(_COMMIT, (body, entries[-1].schema_version, at, *key))
