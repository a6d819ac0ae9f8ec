"""Going back: new executions with a journal that was recorded before, and resets in place.

Each function runs inside a transaction that the caller opened on the writer connection.
"""

from __future__ import annotations

import json

import apsw

from polos.core import rewind
from polos.core.model import Change, Row, Start, StateEntry
from polos.core.rewind import Rewound
from polos.store import rows, values
from polos.store.lining import Lining
from polos.store.sqlite import batch, clear, indexing, keyed, queries, verbs

_NUMBER = "SELECT coalesce(max(cut), 0) + 1 FROM cut_step WHERE root_id = ? AND execution_id = ?"
_OF_SEQS = "WHERE root_id = ?1 AND execution_id = ?2 AND seq IN (SELECT value FROM json_each(?3))"
_KEEP = (
    f"INSERT INTO cut_step (cut, cut_at, {values.STEP_COLUMNS}) "
    f"SELECT ?4, ?5, {values.STEP_COLUMNS} FROM step {_OF_SEQS}"
)
_CUT = f"DELETE FROM step {_OF_SEQS}"
_CUT_WAITS = f"DELETE FROM wait {_OF_SEQS}"
# Nothing that stays waits for a child or an answer; an answer that came early is kept.
_CUT_INBOX = (
    "DELETE FROM inbox WHERE root_id = ?1 AND execution_id = ?2 AND kind IN ('child', 'resume')"
)
_CHILDREN = (
    "SELECT id FROM execution WHERE root_id = ?1 AND parent_id = ?2 "
    "AND status IN ('queued', 'running', 'waiting') "
    "AND parent_key IN (SELECT value FROM json_each(?3)) ORDER BY id"
)
_STATE = f"INSERT INTO state ({values.STATE_COLUMNS}) VALUES ({', '.join('?' * 10)})"
_RESET = (
    "UPDATE execution SET status = 'queued', wake_at = 0, attempt = attempt + 1, result = NULL, "
    "error = NULL, result_type = NULL, completed_at = NULL, cancel_requested_at = NULL, "
    "cancel_delivered_at = NULL, blocked_reason = NULL, crashes = 0, crash_mark = -1, "
    "retry_count = retry_count + 1, "
    "run_timeout_seconds = CASE WHEN run_timeout_seconds IS NULL THEN NULL "
    "ELSE run_timeout_seconds + (?3 - created_at) / 1e6 END WHERE root_id = ?1 AND id = ?2"
)
# A delta may hold only a part of a reference: the new one refers to all that the old one does.
_REFS = (
    "INSERT INTO blob_ref (root_id, execution_id, hash) SELECT ?1, ?2, r.hash FROM execution e "
    "JOIN blob_ref r ON r.root_id = e.root_id AND r.execution_id = e.id WHERE e.id = ?3 "
    "ON CONFLICT (root_id, execution_id, hash) DO NOTHING"
)
_CUT_STEPS = (
    f"SELECT cut, cut_at, {rows.STEP_COLUMNS} FROM cut_step "
    "WHERE root_id = ? AND execution_id = ? ORDER BY cut, seq"
)


def start_with(
    connection: apsw.Connection,
    start: Start,
    journal: list[Row],
    states: list[StateEntry],
    lining: Lining,
) -> None:
    """Create an execution that goes on from a journal."""
    batch.write(connection, [start], lining)
    batch.write_journal(connection, start.root_id, start.id, journal, states)
    if start.forked_from is not None:
        source = json.loads(start.forked_from)["execution_id"]
        connection.execute(_REFS, (start.root_id, start.id, source))


def reset(
    connection: apsw.Connection,
    execution_id: str,
    step_key: str,
    now: int,
    lining: Lining,
    *,
    dry_run: bool,
) -> Rewound:
    """Let an execution go on behind one of its steps; what came after is kept as history."""
    record = verbs.require(connection, execution_id)
    rewind.demand_resettable(record)
    key = (record.root_id, record.id)
    cut = rewind.cut_behind(record, queries.steps(connection, *key), step_key)
    if record.completed_at is not None:
        keyed.check_again(connection, record, "reset")
    number = connection.execute(_NUMBER, key).get
    seqs = json.dumps([row.seq for row in cut.gone])
    gone = json.dumps([row.key for row in cut.gone if row.kind in rewind.EFFECTS])
    children = [str(row[0]) for row in connection.execute(_CHILDREN, (*key, gone))]
    if dry_run:
        return Rewound(cut, number, dict.fromkeys(children, "open"))
    connection.execute(_KEEP, (*key, seqs, number, now))
    connection.execute(_CUT, (*key, seqs))
    connection.execute(_CUT_WAITS, (*key, seqs))
    connection.execute(_CUT_INBOX, key)
    done: dict[str, str] = {}
    for child in children:
        done |= verbs.cancel(connection, child, now, lining)
    _go_back(connection, record.workflow_id, key, cut.state_version, step_key, now, lining)
    if record.completed_at is not None:
        keyed.enter_again(connection, record, "reset")
    connection.execute(_RESET, (*key, now))
    return Rewound(cut, number, done)


def _go_back(
    connection: apsw.Connection,
    workflow_id: str,
    key: tuple[str, str],
    version: int,
    step_key: str,
    now: int,
    lining: Lining,
) -> None:
    """Record the state of an earlier version anew, as the next one."""
    latest = clear.states(connection, lining, key)
    wanted = clear.states(connection, lining, key, version)
    entry, fields = rewind.back(latest, wanted, step_key, now)
    if entry is None:
        return
    change = clear.line(connection, lining, Change.of_state(key, entry))
    connection.execute(_STATE, values.state(*key, change.states[0]))
    indexing.write(connection, key, indexing.of_state(connection, workflow_id, fields))


def cut_steps(
    connection: apsw.Connection, root_id: str, execution_id: str
) -> list[tuple[int, int, Row]]:
    """Read the rows that resets cut off: (number of the reset, its moment, row)."""
    found = connection.execute(_CUT_STEPS, (root_id, execution_id))
    return [(number, at, rows.step(tuple(rest))) for number, at, *rest in found]
