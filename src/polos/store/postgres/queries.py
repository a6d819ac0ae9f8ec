"""Reads: each is one statement on one link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polos.core import versions
from polos.core.model import Execution, InboxItem, Row, StateEntry, Status, WorkerRecord
from polos.core.upkeep import Need
from polos.store import rows
from polos.store.postgres.links import Link

_EXECUTION = f"SELECT {rows.EXECUTION_COLUMNS} FROM {{s}}.execution WHERE id = $1"
_STEPS = (
    f"SELECT {rows.STEP_COLUMNS} FROM {{s}}.step WHERE root_id = $1 AND execution_id = $2 "
    "ORDER BY seq"
)
_STATES = (
    f"SELECT {rows.STATE_COLUMNS} FROM {{s}}.state WHERE root_id = $1 AND execution_id = $2 "
    "ORDER BY version"
)
# A mark is a snapshot (its body begins with a brace), or an entry with a jump. What stands before
# the last snapshot is not read, and between it and the last mark only marks are.
_MARKED = (
    "FROM {s}.state WHERE root_id = $1 AND execution_id = $2 AND version <= $3 "
    "AND (jump IS NOT NULL OR left(body, 1) = '{')"
)
# Each mark is read where the index leads to it: joined again by its version, it would be looked for
# among all entries of the execution as long as the server has no statistics.
_STATES_UP_TO = (
    "WITH mark AS MATERIALIZED (SELECT version, step_key, at, "
    "CASE WHEN jump IS NULL THEN body ELSE '' END AS body, jump, attempt, origin, schema_version "
    f"{_MARKED} AND version >= coalesce((SELECT "
    f"version {_MARKED} AND left(body, 1) = '{{' ORDER BY version DESC LIMIT 1), 0)), "
    "last AS MATERIALIZED (SELECT coalesce(max(version), -1) AS version FROM mark) "
    "SELECT * FROM mark UNION ALL "
    "SELECT t.version, t.step_key, t.at, t.body, t.jump, t.attempt, t.origin, t.schema_version "
    "FROM {s}.state t WHERE t.root_id = $1 AND t.execution_id = $2 "
    "AND t.version > (SELECT version FROM last) AND t.version <= $3 ORDER BY 1"
)
_STATES_BETWEEN = (
    f"SELECT {rows.STATE_COLUMNS} FROM {{s}}.state WHERE root_id = $1 AND execution_id = $2 "
    "AND version > $3 AND version <= $4 ORDER BY version"
)
_VERSION_AT = (
    "SELECT version FROM {s}.state WHERE root_id = $1 AND execution_id = $2 AND at <= $3 "
    "ORDER BY version DESC LIMIT 1"
)
_ORIGIN = (
    "SELECT origin FROM {s}.state WHERE root_id = $1 AND execution_id = $2 AND version <= $3 "
    "AND origin IS NOT NULL ORDER BY version DESC LIMIT 1"
)
_MANY = "FROM unnest($1::text[], $2::text[]) k (root_id, id) JOIN {s}"
_MANY_STEPS = (
    f"SELECT t.execution_id, {rows.STEP_COLUMNS} {_MANY}.step t "
    "ON t.root_id = k.root_id AND t.execution_id = k.id ORDER BY t.execution_id, t.seq"
)
_UNDOING = (
    f"SELECT t.execution_id, {rows.STEP_COLUMNS} {_MANY}.step t "
    "ON t.root_id = k.root_id AND t.execution_id = k.id "
    "WHERE t.kind = 'compensate' OR t.info = 'compensate' ORDER BY t.execution_id, t.seq"
)
_MANY_STATES = (
    f"SELECT t.execution_id, {rows.STATE_COLUMNS} {_MANY}.state t "
    "ON t.root_id = k.root_id AND t.execution_id = k.id ORDER BY t.execution_id, t.version"
)
_INBOXES = (
    "SELECT i.id, i.execution_id, i.kind, i.ref, coalesce(c.status, 'completed'), "
    "CASE WHEN c.id IS NULL THEN i.body WHEN c.status = 'completed' THEN c.result "
    "ELSE c.error END, c.result_type "
    f"{_MANY}.inbox i ON i.root_id = k.root_id AND i.execution_id = k.id "
    "LEFT JOIN {s}.execution c ON i.kind = 'child' AND c.root_id = i.root_id AND c.id = i.ref "
    "ORDER BY i.execution_id, i.at, i.id"
)
_LAST_SEQS = (
    "SELECT k.id, (SELECT max(seq) FROM {s}.step t WHERE t.root_id = k.root_id "
    "AND t.execution_id = k.id) FROM unnest($1::text[], $2::text[]) k (root_id, id)"
)
FREE = (
    "wake_at IS NOT NULL AND wake_at <= $4 AND status IN ('queued', 'waiting') "
    "AND blocked_reason IS NULL"
)
# Says nothing new, but that the index of what workers own has it.
_OWNED = f"{FREE} AND completed_at IS NULL"
# What `core.versions.runs` says, for the worker $1. One that did not enter runs what is anyone's.
_RUNS = (
    f"(deployment_id IS NULL OR deployment_id = '{versions.ANY_DEPLOYMENT}' OR deployment_id = "
    "(SELECT me.deployment_id FROM {s}.worker me WHERE me.id = $1)) AND (code_version IS NULL "
    "OR (SELECT me.versions FROM {s}.worker me WHERE me.id = $1) IS NULL OR code_version = "
    "(SELECT me.versions::jsonb ->> execution.workflow_id FROM {s}.worker me WHERE me.id = $1))"
)
# An embedded client takes what it started and what a dead worker left; a worker takes the queue
# too, and what the preferred worker did not fetch within its head start. What is owned from its
# start has no `wake_at` and is nobody's to claim until its owner is gone. Each part reads the head
# of an index.
# $1 worker, $2 workflows, $3 takes queue, $4 now, $5 now less the head start, $6 limit.
CLAIMABLE = (
    "SELECT root_id, id, attempt, wake_at FROM ("
    f"(SELECT root_id, id, attempt, wake_at FROM {{s}}.execution WHERE worker_id = $1 AND {_OWNED} "
    f"AND {_RUNS} AND workflow_id = ANY($2::text[]) ORDER BY wake_at, id LIMIT $6) UNION "
    "(SELECT e.root_id, e.id, e.attempt, e.wake_at FROM {s}.worker w CROSS JOIN LATERAL "
    f"(SELECT * FROM {{s}}.execution WHERE worker_id = w.id AND {_OWNED} "
    f"AND {_RUNS} AND workflow_id = ANY($2::text[]) ORDER BY wake_at, id LIMIT $6) e "
    "WHERE w.stopped_at IS NOT NULL LIMIT $6) UNION "
    "(SELECT e.root_id, e.id, e.attempt, e.wake_at FROM unnest($2::text[]) f (id) "
    f"CROSS JOIN LATERAL (SELECT * FROM {{s}}.execution WHERE workflow_id = f.id AND {FREE} "
    f"AND {_RUNS} AND (worker_id IS NULL OR wake_at <= $5) ORDER BY wake_at, id LIMIT $6) e "
    "WHERE $3 ORDER BY e.wake_at, e.id LIMIT $6)) c ORDER BY wake_at, id LIMIT $6"
)
_TO_CANCEL = (
    "SELECT id FROM {s}.execution WHERE cancel_requested_at IS NOT NULL AND completed_at IS NULL "
    "AND cancel_delivered_at IS NULL AND worker_id = $1"
)
OVERDUE_CANCEL = (
    "SELECT root_id, id FROM {s}.execution WHERE cancel_requested_at IS NOT NULL "
    "AND completed_at IS NULL "
    "AND greatest(cancel_requested_at, coalesce(cancel_delivered_at, 0)) < $1"
)
OVERDUE_TIME = (
    "SELECT root_id, id FROM {s}.execution WHERE run_timeout_seconds IS NOT NULL "
    "AND completed_at IS NULL AND created_at < $1 AND created_at + run_timeout_seconds * 1e6 < $1"
)
_NEXT_WAKE = (
    "SELECT min(e.wake_at) FROM unnest($2::text[]) f (id) CROSS JOIN LATERAL "
    "(SELECT wake_at FROM {s}.execution WHERE workflow_id = f.id AND wake_at IS NOT NULL "
    f"AND status = 'waiting' AND {_RUNS} ORDER BY wake_at LIMIT 1) e"
)
LATER_WAKE = (
    "SELECT min(e.wake_at) FROM unnest($2::text[]) f (id) CROSS JOIN LATERAL "
    "(SELECT wake_at FROM {s}.execution WHERE workflow_id = f.id AND wake_at > $4 "
    f"AND {_RUNS} ORDER BY wake_at LIMIT 1) e"
)
# Each workflow id in the queue once, by the head of its part of the index.
_QUEUED_IDS = (
    "WITH RECURSIVE q AS ((SELECT workflow_id FROM {s}.execution WHERE wake_at IS NOT NULL "
    "ORDER BY workflow_id LIMIT 1) UNION ALL SELECT (SELECT e.workflow_id FROM {s}.execution e "
    "WHERE e.wake_at IS NOT NULL AND e.workflow_id > q.workflow_id ORDER BY e.workflow_id LIMIT 1) "
    "FROM q WHERE q.workflow_id IS NOT NULL) SELECT workflow_id FROM q "
    "WHERE workflow_id IS NOT NULL"
)
_NEED = "workflow_id, deployment_id, code_version"
# Only the head of each queue: what nobody takes comes to stand there.
DUE_NEEDS = (
    f"SELECT DISTINCT {_NEED} FROM ({_QUEUED_IDS}) f CROSS JOIN LATERAL "
    "(SELECT deployment_id, code_version FROM {s}.execution WHERE workflow_id = f.workflow_id "
    "AND wake_at IS NOT NULL AND wake_at < {before} AND status IN ('queued', 'waiting') "
    "ORDER BY wake_at LIMIT 1000) e"
)
BLOCKED_NEEDS = (
    f"SELECT DISTINCT {_NEED} FROM {{s}}.execution WHERE blocked_reason IS NOT NULL "
    f"AND starts_with(blocked_reason, '{versions.NOBODY}') AND workflow_id IN "
    "(SELECT jsonb_array_elements_text(w.workflows::jsonb) FROM {s}.worker w "
    "WHERE w.stopped_at IS NULL)"
)
_LIVE_WORKERS = f"SELECT {rows.WORKER_COLUMNS} FROM {{s}}.worker WHERE stopped_at IS NULL"
_HAS_STOPPED = "SELECT 1 FROM {s}.worker WHERE id = $1 AND stopped_at IS NOT NULL"
_FINISHED = (
    f"SELECT {rows.EXECUTION_COLUMNS} FROM {{s}}.execution "
    "WHERE id = ANY($1::text[]) AND completed_at IS NOT NULL"
)
_OPEN = {Status.QUEUED, Status.RUNNING, Status.WAITING}
_IN_ERROR = {Status.FAILED, Status.CANCELLED}

Keys = Sequence[tuple[str, str]]


def columns(keys: Sequence[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Return rows as that many arrays."""
    return [[key[n] for key in keys] for n in range(count)]


async def execution(link: Link, execution_id: str) -> Execution | None:
    """Read one execution, or None."""
    found = await link.row(_EXECUTION, execution_id)
    return None if found is None else rows.execution(tuple(found))


async def steps(link: Link, root_id: str, execution_id: str) -> list[Row]:
    """Read the journal in one query, by `seq`."""
    return [rows.step(tuple(r)) for r in await link.fetch(_STEPS, root_id, execution_id)]


async def states(link: Link, root_id: str, execution_id: str) -> list[StateEntry]:
    """Read all state entries, by version."""
    return [rows.state(tuple(r)) for r in await link.fetch(_STATES, root_id, execution_id)]


async def states_up_to(
    link: Link, root_id: str, execution_id: str, version: int
) -> list[StateEntry]:
    """Read what the state of a version is made of: a snapshot, jumps, deltas (see `core.delta`).

    An entry that is read for its jump has no body.
    """
    found = await link.fetch(_STATES_UP_TO, root_id, execution_id, version)
    return [rows.state(tuple(r)) for r in found]


async def states_between(
    link: Link, root_id: str, execution_id: str, after: int, until: int
) -> list[StateEntry]:
    """Read the entries behind one version, up to and including another."""
    found = await link.fetch(_STATES_BETWEEN, root_id, execution_id, after, until)
    return [rows.state(tuple(r)) for r in found]


async def state_version_at(link: Link, root_id: str, execution_id: str, at: int) -> int | None:
    """Return the last version that was recorded up to a moment."""
    return next((v for (v,) in await link.fetch(_VERSION_AT, root_id, execution_id, at)), None)


async def state_origin(link: Link, root_id: str, execution_id: str, version: int) -> str | None:
    """Return the last `origin` up to a version."""
    return next((o for (o,) in await link.fetch(_ORIGIN, root_id, execution_id, version)), None)


async def inboxes(link: Link, keys: Keys) -> list[InboxItem]:
    """Read what came from outside for executions, oldest first."""
    found = await link.fetch(_INBOXES, *columns(keys, 2)) if keys else []
    return [rows.inbox_item(tuple(r)) for r in found]


async def many_steps(link: Link, keys: Keys) -> dict[str, list[Row]]:
    """Read the journals of executions in one query: {id: rows by seq}."""
    found: dict[str, list[Row]] = {}
    for record in await link.fetch(_MANY_STEPS, *columns(keys, 2)) if keys else []:
        found.setdefault(record[0], []).append(rows.step(tuple(record)[1:]))
    return found


async def undoing(link: Link, keys: Keys) -> dict[str, list[Row]]:
    """Read the rows of steps that are to be undone, and of their undoing: {id: rows by seq}."""
    found: dict[str, list[Row]] = {}
    for record in await link.fetch(_UNDOING, *columns(keys, 2)) if keys else []:
        found.setdefault(record[0], []).append(rows.step(tuple(record)[1:]))
    return found


async def many_states(link: Link, keys: Keys) -> dict[str, list[StateEntry]]:
    """Read the states of executions in one query: {id: entries by version}."""
    found: dict[str, list[StateEntry]] = {}
    for record in await link.fetch(_MANY_STATES, *columns(keys, 2)) if keys else []:
        found.setdefault(record[0], []).append(rows.state(tuple(record)[1:]))
    return found


async def last_seqs(link: Link, keys: Keys) -> dict[str, int]:
    """Return the last `seq` of each journal, or 0."""
    found = await link.fetch(_LAST_SEQS, *columns(keys, 2)) if keys else []
    return {id_: seq or 0 for id_, seq in found}


async def claimable(
    link: Link,
    worker_id: str,
    workflows: Sequence[str],
    takes_queue: bool,
    now: int,
    head_start: int,
    limit: int,
) -> list[tuple[str, str, int]]:
    """Find executions that this worker may claim now: (root, id, attempt), oldest first."""
    found = await link.fetch(
        CLAIMABLE, worker_id, list(workflows), takes_queue, now, now - head_start, limit
    )
    return [(root_id, id_, attempt) for root_id, id_, attempt, _ in found]


async def to_cancel(link: Link, worker_id: str) -> list[str]:
    """Find executions of this worker whose cancellation was asked for and not yet delivered."""
    return [id_ for (id_,) in await link.fetch(_TO_CANCEL, worker_id)]


async def overdue(link: Link, deadline: int) -> bool:
    """Say whether a cancellation, or the time of an execution, was over before `deadline`."""
    return bool(
        await link.fetch(OVERDUE_CANCEL + " LIMIT 1", deadline)
        or await link.fetch(OVERDUE_TIME + " LIMIT 1", deadline)
    )


async def next_wake(link: Link, worker_id: str, workflows: Sequence[str]) -> int | None:
    """Return when the next timer of an execution of these workflows is due."""
    return (await link.row(_NEXT_WAKE, worker_id, list(workflows)))[0]


async def due_needs(link: Link, before: int) -> list[Need]:
    """Return what the executions need that are due since `before` and nobody has claimed."""
    found = await link.fetch(DUE_NEEDS.replace("{before}", "$1"), before)
    return [Need(*record) for record in found]


async def blocked_needs(link: Link) -> list[Need]:
    """Return what executions need that nobody could run, of workflows that are registered now."""
    return [Need(*record) for record in await link.fetch(BLOCKED_NEEDS)]


async def has_stopped(link: Link, worker_id: str) -> bool:
    """Say whether a worker left, or was declared dead."""
    return bool(await link.fetch(_HAS_STOPPED, worker_id))


async def live_workers(link: Link) -> list[WorkerRecord]:
    """Read the workers that have not stopped."""
    return [rows.worker(tuple(r)) for r in await link.fetch(_LIVE_WORKERS)]


async def finished(link: Link, ids: Sequence[str]) -> list[Execution]:
    """Read those of the named executions that have ended."""
    return [rows.execution(tuple(r)) for r in await link.fetch(_FINISHED, list(ids))]


async def listing(link: Link, filters: dict[str, Any], limit: int) -> list[Execution]:
    """List executions newest first; `filters` are columns with their values, and `before`."""
    conditions: list[str] = []
    arguments: list[Any] = []
    for column, value in filters.items():
        arguments.append(value)
        place = f"${len(arguments)}"
        conditions.append(f"id < {place}" if column == "before" else f"{column} = {place}")
        if column == "status" and value in _OPEN:
            conditions.append("completed_at IS NULL")
        if column == "status" and value in _IN_ERROR:
            conditions.append("error IS NOT NULL")
        if column == "parent_id" and "root_id" not in filters:
            conditions.append(f"root_id = (SELECT root_id FROM {{s}}.execution WHERE id = {place})")
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    arguments.append(None if limit < 0 else limit)
    found = await link.fetch(
        f"SELECT {rows.EXECUTION_COLUMNS} FROM {{s}}.execution {where}"
        f"ORDER BY id DESC LIMIT ${len(arguments)}",
        *arguments,
    )
    return [rows.execution(tuple(r)) for r in found]
