"""The SQL of the hot path; `{s}` is the schema.

Each statement joins its arrays with a table by the root and the id, and locks before it writes.
"""

from __future__ import annotations

from collections.abc import Iterable

from polos.store import rows, values

_STEP_TYPES = (
    *("text", "text", "bigint", "text", "text", "bigint", "text", "bigint", "boolean", "text"),
    *("text", "boolean", "text", "bigint", "bigint", "text", "bigint", "bigint", "bigint"),
)
_STATE_TYPES = (
    *("text", "text", "bigint", "text", "bigint", "text", "text", "bigint", "text"),
    "bigint",
)
_INDEX_TYPES = ("text", "text", "text", "text", "text", "double precision")
_WAIT_TYPES = (
    *("text", "text", "bigint", "text", "text", "text", "text", "text", "bigint", "bigint"),
)
_EVENT_TYPES = ("text", "bigint", "text", "text", "text", "text", "text", "bigint")
_START_TYPES = (
    *("text", "text", "text", "text", "bigint", "text", "bigint", "text", "text", "text"),
    *("text", "boolean", "text", "text", "text", "text", "text", "text", "text"),
    *("double precision", "text", "text", "text", "text", "bigint"),
)


def _arrays(types: Iterable[str], first: int = 1) -> str:
    return ", ".join(f"${n}::{each}[]" for n, each in enumerate(types, first))


def _scalars(types: Iterable[str], first: int = 1) -> str:
    return ", ".join(f"${n}::{each}" for n, each in enumerate(types, first))


# A row is written a second time when it closes: what was known when it opened stays.
_CLOSES = (
    " ON CONFLICT (root_id, execution_id, seq) DO UPDATE SET turn = excluded.turn, "
    "ok = excluded.ok, body = excluded.body, type = excluded.type, pinned = excluded.pinned, "
    "change = excluded.change, state_version = excluded.state_version, "
    "due_at = excluded.due_at, attempts = excluded.attempts, completed_at = excluded.completed_at"
)
# A join alone is no fence: a takeover that commits between the look and the write would not be
# seen. The lock waits for it, and looks at the row again.
FENCE = (
    "SELECT k.n, e.worker_id, k.attempt IS NULL AS other "
    "FROM unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY k (root_id, id, attempt, n) "
    "JOIN {s}.execution e ON e.root_id = k.root_id AND e.id = k.id "
    "AND (k.attempt IS NULL OR e.attempt = k.attempt AND e.status IN ('queued', 'running')) "
    "ORDER BY e.root_id, e.id FOR NO KEY UPDATE OF e"
)
STEPS = (
    f"INSERT INTO {{s}}.step ({values.STEP_COLUMNS}) "
    f"SELECT * FROM unnest({_arrays(_STEP_TYPES)}){_CLOSES}"
)
STATES = (
    f"INSERT INTO {{s}}.state ({values.STATE_COLUMNS}) "
    f"SELECT * FROM unnest({_arrays(_STATE_TYPES)})"
)
INDEX = (
    f"INSERT INTO {{s}}.field_index ({values.INDEX_COLUMNS}) "
    f"SELECT * FROM unnest({_arrays(_INDEX_TYPES)}) ON CONFLICT (root_id, execution_id, path) "
    "DO UPDATE SET value = excluded.value, number = excluded.number"
)
UNINDEX = (
    "DELETE FROM {s}.field_index t USING unnest($1::text[], $2::text[], $3::text[]) "
    "k (root_id, id, path) "
    "WHERE t.root_id = k.root_id AND t.execution_id = k.id AND t.path = k.path"
)
_NEW = (
    f"INSERT INTO {{s}}.execution ({values.START_COLUMNS}, status) "
    f"SELECT s.*, 'queued' FROM unnest({_arrays(_START_TYPES)}) s ON CONFLICT"
)
STARTS = (
    f"{_NEW} (workflow_id, idempotency_key) WHERE idempotency_key IS NOT NULL "
    "DO NOTHING RETURNING id"
)
# What was sent before, and committed before the connection was lost, is there already.
STATES_AGAIN = f"{STATES} ON CONFLICT DO NOTHING"
STARTS_AGAIN = f"{_NEW} DO NOTHING RETURNING id"
KNOWN = (
    "SELECT k.n, e.id FROM unnest($1::text[], $2::text[], $3::text[]) "
    "WITH ORDINALITY k (id, workflow_id, idempotency_key, n) JOIN {s}.execution e "
    "ON e.workflow_id = k.workflow_id AND e.idempotency_key = k.idempotency_key"
)
_KEYS = "unnest($1::text[], $2::text[], $3::bigint[]) k (root_id, id, value)"
RUNNING = (
    "UPDATE {s}.execution e SET status = 'running', wake_at = NULL, "
    f"started_at = coalesce(started_at, k.value) FROM {_KEYS} "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
DELIVERED = (
    f"UPDATE {{s}}.execution e SET cancel_delivered_at = k.value FROM {_KEYS} "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
RETRIED = (
    f"UPDATE {{s}}.execution e SET retry_count = k.value FROM {_KEYS} "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
RELEASED = (
    "UPDATE {s}.execution e SET status = 'queued', wake_at = k.value, attempt = attempt + 1 "
    f"FROM {_KEYS} WHERE e.root_id = k.root_id AND e.id = k.id"
)
# A run that continues as new: its journal is cut. Early answers to suspensions that the next one
# may come to are kept, and children that are still open tell nobody of their end.
CUT = (
    *(
        f"DELETE FROM {{s}}.{table} WHERE root_id = $1 AND execution_id = $2"
        for table in ("step", "state", "wait")
    ),
    "DELETE FROM {s}.inbox WHERE root_id = $1 AND execution_id = $2 AND id NOT LIKE 'resume:%'",
)
# Of the run that is over: the next one does not wait for them.
LET_GO = (
    "WITH family AS MATERIALIZED (SELECT root_id, id FROM {s}.execution "
    "WHERE root_id = $1 AND parent_id = $2 AND completed_at IS NULL "
    "ORDER BY root_id, id FOR NO KEY UPDATE) UPDATE {s}.execution e SET awaited = false "
    "FROM family f WHERE e.root_id = f.root_id AND e.id = f.id"
)
RENEWED = (
    "UPDATE {s}.execution SET payload = $3, payload_type = $4, generation = generation + 1, "
    "retry_count = 0, crashes = 0, crash_mark = -1 WHERE root_id = $1 AND id = $2"
)
FORGET = (
    "DELETE FROM {s}.step t USING unnest($1::text[], $2::text[], $3::bigint[]) "
    "k (root_id, id, seq) WHERE t.root_id = k.root_id AND t.execution_id = k.id AND t.seq = k.seq"
)
CONSUMED = (
    "DELETE FROM {s}.inbox t "
    "USING unnest($1::text[], $2::text[], $3::text[]) k (root_id, id, item) "
    "WHERE t.root_id = k.root_id AND t.execution_id = k.id AND t.id = k.item"
)
WAITS = (
    f"INSERT INTO {{s}}.wait ({values.WAIT_COLUMNS}) SELECT * FROM unnest({_arrays(_WAIT_TYPES)}) "
    "ON CONFLICT (root_id, execution_id, seq) DO NOTHING"
)
# An answer that came early, to this execution or to the root of its tree: now it is asked for.
# Who brings one locks the tree, so that this, behind the fence, sees it or is seen.
ASKED_FOR = (
    "UPDATE {s}.inbox i SET execution_id = k.id, kind = 'resume' "
    "FROM unnest($1::text[], $2::text[], $3::text[]) k (root_id, id, item) "
    "WHERE i.root_id = k.root_id AND i.execution_id IN (k.id, k.root_id) AND i.id = k.item "
    "AND i.kind = 'early' AND (i.execution_id = k.id OR NOT EXISTS (SELECT 1 FROM {s}.inbox o "
    "WHERE o.root_id = k.root_id AND o.execution_id = k.id AND o.id = k.item))"
)
ANSWERED = (
    "DELETE FROM {s}.wait t USING unnest($1::text[], $2::text[], $3::bigint[]) "
    "k (root_id, id, seq) WHERE t.root_id = k.root_id AND t.execution_id = k.id AND t.seq = k.seq"
)
# The counters of topics are locked in the order of their names, after all executions: whoever
# publishes there, or begins to wait there, comes before or after. No root: a topic is everybody's.
TOPICS = (
    "INSERT INTO {s}.topic (name, last) SELECT name, count FROM unnest($1::text[], $2::bigint[]) "
    "k (name, count) ORDER BY name ON CONFLICT (name) DO UPDATE "
    "SET last = topic.last + excluded.last RETURNING name, last"
)
# The events of topics that are locked, and all that waits there.
EVENTS = (
    f"WITH new AS (INSERT INTO {{s}}.event ({values.EVENT_COLUMNS}) "
    f"SELECT * FROM unnest({_arrays(_EVENT_TYPES)})) "
    f"SELECT {rows.WAIT_COLUMNS} FROM {{s}}.wait WHERE topic = ANY($1::text[]) ORDER BY at"
)
TOPIC_CURSORS = "SELECT name, cursor FROM {s}.topic WHERE name = ANY($1::text[])"
TOPICS_MOVED = (
    "UPDATE {s}.topic t SET cursor = k.cursor FROM unnest($1::text[], $2::text[]) "
    "k (name, cursor) WHERE t.name = k.name"
)
EVENTS_SENT = (
    "SELECT k.n, e.seq FROM unnest($1::text[], $2::bigint[], $3::text[]) WITH ORDINALITY "
    "k (topic, at, id, n) JOIN {s}.event e ON e.topic = k.topic AND e.at = k.at AND e.id = k.id"
)
WAITERS = f"SELECT {rows.WAIT_COLUMNS} FROM {{s}}.wait WHERE topic = ANY($1::text[])"
# Items for executions that are locked; a wait is over ($7 names its row) or goes on (NULL).
DELIVER = (
    "WITH k AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], "
    "$5::bigint[], $6::text[], $7::bigint[]) k (root_id, id, item, ref, at, body, seq)), "
    "items AS (INSERT INTO {s}.inbox (root_id, execution_id, id, kind, ref, at, body) "
    "SELECT e.root_id, e.id, k.item, 'event', k.ref, k.at, k.body FROM k JOIN {s}.execution e "
    "ON e.root_id = k.root_id AND e.id = k.id AND e.completed_at IS NULL "
    "ON CONFLICT (root_id, execution_id, id) DO NOTHING), "
    "over AS (DELETE FROM {s}.wait t USING k WHERE t.root_id = k.root_id "
    "AND t.execution_id = k.id AND t.seq = k.seq) "
    "UPDATE {s}.execution e SET status = 'queued', wake_at = k.at "
    "FROM (SELECT root_id, id, min(at) AS at FROM k GROUP BY 1, 2) k "
    "WHERE e.root_id = k.root_id AND e.id = k.id AND e.status = 'waiting' "
    "AND e.blocked_reason IS NULL"
)
# An item that came while the attempt was on its way to wait would wake nobody later. Its sender
# locks the execution before it adds one, so that this, behind the fence, sees all there are.
WAITING = (
    "UPDATE {s}.execution e SET status = CASE WHEN w.woken THEN 'queued' ELSE 'waiting' END, "
    "started_at = coalesce(e.started_at, w.at), "
    "wake_at = CASE WHEN w.woken THEN w.at ELSE w.wake_at END FROM ("
    "SELECT k.*, (SELECT count(*) FROM {s}.inbox i WHERE i.root_id = k.root_id "
    "AND i.execution_id = k.id AND i.kind <> 'early') > k.seen "
    "OR EXISTS (SELECT 1 FROM {s}.execution c "
    "WHERE c.root_id = k.root_id AND c.id = k.id AND c.cancel_requested_at IS NOT NULL "
    "AND c.cancel_delivered_at IS NULL) AS woken "
    "FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[]) "
    "WITH ORDINALITY k (root_id, id, wake_at, at, seen, n)) w "
    "WHERE e.root_id = w.root_id AND e.id = w.id RETURNING w.n, e.status"
)
_ENDS = (
    "SET status = k.status, "
    "result = CASE WHEN k.status = 'completed' THEN k.body ELSE e.result END, "
    "error = CASE WHEN k.status = 'completed' THEN e.error ELSE k.body END, "
    "result_type = k.type, completed_at = k.at, wake_at = NULL, blocked_reason = NULL, "
    "started_at = coalesce(e.started_at, k.at)"
)
ENDED = (
    f"UPDATE {{s}}.execution e {_ENDS} "
    "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) "
    "k (root_id, id, status, body, type, at) WHERE e.root_id = k.root_id AND e.id = k.id"
)
CLEAR_INBOX = (
    "DELETE FROM {s}.inbox t USING unnest($1::text[], $2::text[]) k (root_id, id) "
    "WHERE t.root_id = k.root_id AND t.execution_id = k.id"
)
TELL_PARENT = (
    "INSERT INTO {s}.inbox (root_id, execution_id, id, kind, ref, at) "
    "SELECT e.root_id, e.id, k.child, 'child', k.child, k.at "
    "FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) k (root_id, id, child, at) "
    "JOIN {s}.execution e ON e.root_id = k.root_id AND e.id = k.id AND e.completed_at IS NULL "
    "JOIN {s}.execution c ON c.root_id = k.root_id AND c.id = k.child AND c.awaited "
    "ON CONFLICT (root_id, execution_id, id) DO NOTHING"
)
# Whoever asked for the cancellation asked all there were: a child may have come after that.
CANCEL_CHILDREN = (
    "WITH family AS MATERIALIZED (SELECT e.root_id, e.id, k.at "
    "FROM unnest($1::text[], $2::text[], $3::bigint[]) k (root_id, id, at) JOIN {s}.execution e "
    "ON e.root_id = k.root_id AND e.parent_id = k.id AND e.completed_at IS NULL "
    "AND e.cancel_requested_at IS NULL ORDER BY e.root_id, e.id FOR NO KEY UPDATE OF e) "
    "UPDATE {s}.execution e SET cancel_requested_at = f.at, wake_at = CASE "
    "WHEN e.status = 'waiting' AND e.blocked_reason IS NULL THEN f.at ELSE e.wake_at END, "
    "status = CASE WHEN e.status = 'waiting' AND e.blocked_reason IS NULL THEN 'queued' "
    "ELSE e.status END FROM family f WHERE e.root_id = f.root_id AND e.id = f.id "
    "RETURNING e.worker_id"
)
WAKE_PARENT = (
    "UPDATE {s}.execution e SET status = 'queued', wake_at = k.at "
    "FROM unnest($1::text[], $2::text[], $3::bigint[]) k (root_id, id, at) "
    "WHERE e.root_id = k.root_id AND e.id = k.id AND e.status = 'waiting' "
    "AND e.blocked_reason IS NULL"
)
LOCK = (
    "SELECT e.id, e.worker_id FROM unnest($1::text[], $2::text[]) k (root_id, id) "
    "JOIN {s}.execution e ON e.root_id = k.root_id AND e.id = k.id "
    "ORDER BY e.root_id, e.id FOR NO KEY UPDATE OF e"
)
SENT_START = (
    "SELECT e.attempt, s.body, s.schema_version FROM {s}.execution e LEFT JOIN {s}.state s "
    "ON s.root_id = e.root_id AND s.execution_id = e.id AND s.version = 0 "
    "WHERE e.root_id = $1 AND e.id = $2"
)
# For those that come out of order, behind a topic: nobody is waited for.
LOCK_FREE = f"{LOCK} SKIP LOCKED"
SENT_BEFORE = (
    "SELECT k.n, e.status, e.completed_at FROM unnest($1::text[], $2::text[], $3::bigint[]) "
    "WITH ORDINALITY k (root_id, id, attempt, n) JOIN {s}.execution e "
    "ON e.root_id = k.root_id AND e.id = k.id AND e.attempt = k.attempt"
)

_N = len(_STEP_TYPES)
_MINE = "root_id = $1 AND id = $2 AND attempt = {attempt} AND status IN ('queued', 'running')"


def _lone_row(*, first: bool, state: bool, new: bool) -> str:
    """Return the statement of one row: $1.. the row, the attempt, the moment, the state entry.

    The first one of an attempt says that the execution runs: the same statement locks it then.
    A new row closes none that is open: the index need not be asked for one.
    """
    mine = _MINE.format(attempt=f"${_N + 1}")
    look = f"SELECT 1 FROM {{s}}.execution WHERE {mine} FOR NO KEY UPDATE"
    if first:
        look = (
            "UPDATE {s}.execution SET status = 'running', wake_at = NULL, "
            f"started_at = coalesce(started_at, ${_N + 2}) WHERE {mine} RETURNING 1"
        )
    entry = ""
    if state:
        given = _scalars(_STATE_TYPES[2:], _N + (3 if first else 2))
        entry = (
            f", entry AS (INSERT INTO {{s}}.state ({values.STATE_COLUMNS}) "
            f"SELECT $1, $2, {given} FROM alive)"
        )
    closes = "" if new else _CLOSES
    return (
        f"WITH alive AS MATERIALIZED ({look}){entry} INSERT INTO {{s}}.step "
        f"({values.STEP_COLUMNS}) SELECT {_scalars(_STEP_TYPES)} FROM alive{closes}"
    )


LONE_ROWS = {
    (first, state, new): _lone_row(first=first, state=state, new=new)
    for first in (False, True)
    for state in (False, True)
    for new in (False, True)
}
# A worker that was declared dead, and does not know it yet, owns nothing that it starts: nobody
# would look after it. The lock makes its death wait for what it is starting right now.
OWNERS = "SELECT id, stopped_at IS NOT NULL FROM {s}.worker WHERE id = ANY($1::text[]) FOR SHARE"
_S = len(_START_TYPES)
_STARTED = [f"${n}::{each}" for n, each in enumerate(_START_TYPES, 1)]
_STARTED[4] = f"CASE WHEN gone THEN 0 ELSE {_STARTED[4]} END"
_STARTED[6] = f"CASE WHEN gone THEN ${_S} ELSE {_STARTED[6]} END"
_MADE = (
    "WITH owner AS MATERIALIZED (SELECT stopped_at FROM {s}.worker WHERE id = $6 FOR SHARE), "
    "made AS ("
    f"INSERT INTO {{s}}.execution ({values.START_COLUMNS}, status) "
    f"SELECT {', '.join(_STARTED)}, 'queued' FROM (SELECT EXISTS "
    "(SELECT 1 FROM owner WHERE stopped_at IS NOT NULL) AS gone) o RETURNING attempt)"
)
LONE_START_AND_STATE = (
    f"{_MADE}, entry AS (INSERT INTO {{s}}.state ({values.STATE_COLUMNS}) "
    f"SELECT $1, $2, 0, NULL, ${_S}, ${_S + 1}::text, NULL, NULL, NULL, "
    f"${_S + 2}::bigint FROM made) "
    "SELECT attempt FROM made"
)
LONE_START = f"{_MADE} SELECT attempt FROM made"
_ALIVE = f"SELECT 1 FROM {{s}}.execution WHERE {_MINE.format(attempt='$7')} FOR NO KEY UPDATE"
LONE_ENDING = (
    f"WITH alive AS MATERIALIZED ({_ALIVE}), gone AS (DELETE FROM {{s}}.inbox "
    "WHERE root_id = $1 AND execution_id = $2) "
    f"UPDATE {{s}}.execution e {_ENDS} FROM (SELECT $1::text AS root_id, $2::text AS id, "
    "$3::text AS status, $4::text AS body, $5::text AS type, $6::bigint AS at FROM alive) k "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
LONE_ENDING_AND_STATE = LONE_ENDING.replace(
    ", gone AS",
    f", entry AS (INSERT INTO {{s}}.state ({values.STATE_COLUMNS}) "
    f"SELECT $1, $2, {_scalars(_STATE_TYPES[2:], 8)} FROM alive), gone AS",
)

HOT_STATEMENTS = (
    *(
        FENCE,
        STEPS,
        STATES,
        STATES_AGAIN,
        INDEX,
        UNINDEX,
        STARTS,
        STARTS_AGAIN,
        KNOWN,
        OWNERS,
        RUNNING,
        DELIVERED,
        RETRIED,
        RELEASED,
    ),
    *(
        *CUT,
        LET_GO,
        RENEWED,
        FORGET,
        WAITS,
        ASKED_FOR,
        ANSWERED,
        CONSUMED,
        WAITING,
        ENDED,
        CLEAR_INBOX,
        TELL_PARENT,
        WAKE_PARENT,
        CANCEL_CHILDREN,
        LOCK,
        LOCK_FREE,
    ),
    *(TOPICS, TOPIC_CURSORS, TOPICS_MOVED, EVENTS, EVENTS_SENT, WAITERS, DELIVER),
    *(
        LONE_START,
        LONE_START_AND_STATE,
        LONE_ENDING,
        LONE_ENDING_AND_STATE,
        SENT_BEFORE,
        SENT_START,
    ),
    *LONE_ROWS.values(),
)
"""For the test that reads them: each names the root of what it touches, or says why not."""
