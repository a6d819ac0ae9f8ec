"""The less frequent writes: claims, cancellation, retry, workers and taking over.

Each function runs inside a transaction that the caller opened, and locks in one order: the worker,
then executions by (root, id). A claim waits for nobody but for what the caller has parked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from polos.core import failure, transitions, versions
from polos.core.keyed import Keyed
from polos.core.model import Execution, Failure, InboxItem, StateEntry, Status, Work, WorkerRecord
from polos.errors import ConflictError, ExecutionNotFoundError
from polos.store import rows
from polos.store.lining import Lining
from polos.store.postgres import batch, keyed, queries
from polos.store.postgres.links import Link

_HOLD_WORKER = "SELECT stopped_at FROM {s}.worker WHERE id = $1 FOR SHARE"
_KEYS = "unnest($1::text[], $2::text[], $3::bigint[]) WITH ORDINALITY k (root_id, id, attempt, n)"
# $4 worker, $5 now, $6 limit, $7 sent before: then it may be ours already.
_PICK = (
    f"WITH picked AS MATERIALIZED (SELECT e.root_id, e.id, e.attempt FROM {_KEYS} "
    "JOIN {s}.execution e ON e.root_id = k.root_id AND e.id = k.id WHERE "
    "(e.attempt = k.attempt AND e.status IN ('queued', 'waiting') AND e.blocked_reason IS NULL "
    "AND e.wake_at IS NOT NULL AND e.wake_at <= $5) "
    "OR ($7 AND e.attempt = k.attempt + 1 AND e.status = 'running' AND e.worker_id = $4) "
)
_CLAIM = (
    "UPDATE {s}.execution e SET status = 'running', attempt = "
    "CASE WHEN e.status = 'running' THEN e.attempt ELSE e.attempt + 1 END, worker_id = $4, "
    "wake_at = NULL, blocked_reason = NULL, started_at = coalesce(e.started_at, $5) "
    "FROM picked p WHERE e.root_id = p.root_id AND e.id = p.id "
    f"RETURNING {', '.join(f'e.{name}' for name in rows.EXECUTION_COLUMNS.split(', '))}"
)
_CLAIM_FREE = f"{_PICK} ORDER BY k.n LIMIT $6 FOR NO KEY UPDATE OF e SKIP LOCKED) {_CLAIM}"
# Code beside a wait goes on: the coroutine is here, whatever moment the wait is for.
_CLAIM_PARKED = (
    f"{_PICK} OR (e.attempt = k.attempt AND e.status = 'waiting' AND e.blocked_reason IS NULL "
    "AND e.worker_id = $4) "
    f"ORDER BY e.root_id, e.id LIMIT $6 FOR NO KEY UPDATE OF e) {_CLAIM}"
)
TREE = (
    "WITH RECURSIVE tree (root_id, id) AS (SELECT $1::text, $2::text UNION ALL "
    "SELECT e.root_id, e.id FROM {s}.execution e JOIN tree t ON e.root_id = t.root_id "
    "AND e.parent_id = t.id WHERE e.root_id = $1) SELECT e.root_id, e.id, e.parent_id FROM tree t "
    "JOIN {s}.execution e ON e.root_id = t.root_id AND e.id = t.id WHERE e.completed_at IS NULL"
)
_READ = (
    f"SELECT {rows.EXECUTION_COLUMNS} FROM {{s}}.execution "
    "WHERE root_id = ANY($1::text[]) AND id = ANY($2::text[])"
)
_LOCK_ONE = "SELECT root_id, parent_id FROM {s}.execution WHERE id = $1"
_ASK = (
    "UPDATE {s}.execution e SET cancel_requested_at = coalesce(e.cancel_requested_at, $4), "
    "status = CASE WHEN k.queued THEN 'queued' ELSE e.status END, blocked_reason = NULL, "
    "wake_at = CASE WHEN k.queued THEN $4 ELSE e.wake_at END "
    "FROM unnest($1::text[], $2::text[], $3::boolean[]) k (root_id, id, queued) "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
_END = (
    "UPDATE {s}.execution e SET status = $3, error = k.error, attempt = e.attempt + 1, "
    "completed_at = $4, wake_at = NULL, blocked_reason = NULL, cancel_requested_at = "
    "CASE WHEN $3 = 'cancelled' THEN coalesce(e.cancel_requested_at, $4) "
    "ELSE e.cancel_requested_at END "
    "FROM unnest($1::text[], $2::text[], $5::text[]) k (root_id, id, error) "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
_CLEAR_WAITS = (
    "DELETE FROM {s}.wait t USING unnest($1::text[], $2::text[]) k (root_id, id) "
    "WHERE t.root_id = k.root_id AND t.execution_id = k.id"
)
_BLOCK = (
    "UPDATE {s}.execution SET status = 'waiting', wake_at = NULL, blocked_reason = $3, "
    "attempt = attempt + 1 WHERE id = $1 AND attempt = $2 AND status IN ('queued', 'running') "
    "RETURNING 1"
)
_RELEASE = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = 0, blocked_reason = NULL, "
    "crashes = 0, crash_mark = -1 WHERE root_id = $1 AND id = $2"
)
_CUT = "DELETE FROM {s}.step WHERE root_id = $1 AND execution_id = $2 AND seq = ANY($3::bigint[])"
_RETRY = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = 0, attempt = attempt + 1, "
    "error = NULL, result_type = NULL, completed_at = NULL, cancel_requested_at = NULL, "
    "cancel_delivered_at = NULL, retry_count = retry_count + 1, crashes = 0, "
    "crash_mark = -1, "
    "run_timeout_seconds = run_timeout_seconds + ($3::bigint - created_at) / 1e6::float8 "
    "WHERE root_id = $1 AND id = $2"
)
_REGISTER = (
    "INSERT INTO {s}.worker (id, host, pid, started_at, takes_queue, workflows, deployment_id, "
    "versions) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET "
    "takes_queue = excluded.takes_queue, workflows = excluded.workflows, "
    "deployment_id = excluded.deployment_id, versions = excluded.versions"
)
FORGOTTEN_US = 7 * 86_400 * 1_000_000
"""Who stopped so long ago, and left nothing, is forgotten: everybody looks at the rest."""
_FORGET_WORKERS = (
    "DELETE FROM {s}.worker WHERE id IN (SELECT w.id FROM {s}.worker w WHERE w.stopped_at < $1 "
    "AND NOT EXISTS (SELECT 1 FROM {s}.execution e WHERE e.worker_id = w.id "
    "AND e.completed_at IS NULL) FOR UPDATE SKIP LOCKED)"
)
_STOP = "UPDATE {s}.worker SET stopped_at = $2 WHERE id = $1 AND stopped_at IS NULL RETURNING 1"
_OWNED = (
    "SELECT root_id, id FROM {s}.execution WHERE worker_id = $1 AND completed_at IS NULL "
    "AND status IN ('queued', 'running') "
    # Not what is queued behind others with its state key: the end of the one before wakes it.
    "AND NOT (status = 'queued' AND attempt = 0 AND wake_at IS NULL) "
    "ORDER BY root_id, id FOR NO KEY UPDATE"
)
# The mark counts rows and turns, so that closing an open row is progress as well.
_COUNT_CRASHES = (
    "UPDATE {s}.execution e SET "
    "crashes = CASE WHEN e.crash_mark = m.mark THEN e.crashes + 1 ELSE 1 END, crash_mark = m.mark "
    "FROM (SELECT k.root_id, k.id, (SELECT coalesce(max(seq), 0) + coalesce(max(turn), 0) "
    "FROM {s}.step t WHERE t.root_id = k.root_id AND t.execution_id = k.id) AS mark "
    "FROM unnest($1::text[], $2::text[]) k (root_id, id)) m "
    "WHERE e.root_id = m.root_id AND e.id = m.id AND e.attempt > 0"
)
_HAND_BACK = (
    "UPDATE {s}.execution e SET attempt = attempt + 1, "
    "status = CASE WHEN crashes >= $3 THEN 'waiting' ELSE 'queued' END, "
    "wake_at = CASE WHEN crashes >= $3 THEN NULL ELSE 0 END, "
    "blocked_reason = CASE WHEN crashes >= $3 THEN $4::text ELSE NULL END "
    "FROM unnest($1::text[], $2::text[]) k (root_id, id) "
    "WHERE e.root_id = k.root_id AND e.id = k.id"
)
_OF_NEED = (
    "workflow_id = $1 AND deployment_id IS NOT DISTINCT FROM $2::text "
    "AND code_version IS NOT DISTINCT FROM $3::text"
)
_RELEASE_NEED = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = 0, blocked_reason = NULL "
    f"WHERE {_OF_NEED} AND status = 'waiting' AND blocked_reason IS NOT NULL "
    f"AND starts_with(blocked_reason, '{versions.NOBODY}') RETURNING 1"
)
_BLOCK_NEED = (
    "UPDATE {s}.execution SET status = 'waiting', wake_at = NULL, blocked_reason = $5 "
    f"WHERE {_OF_NEED} AND wake_at IS NOT NULL AND wake_at < $4 "
    "AND status IN ('queued', 'waiting') RETURNING 1"
)
# A worker that compares code lets executions that were started without it have its version.
_SET_VERSIONS = (
    "UPDATE {s}.execution e SET code_version = w.versions::jsonb ->> e.workflow_id "
    "FROM unnest($1::text[], $2::text[]) k (root_id, id), {s}.worker w "
    "WHERE e.root_id = k.root_id AND e.id = k.id AND w.id = $3 AND w.versions IS NOT NULL "
    "RETURNING e.id, e.code_version"
)


async def claim(
    link: Link,
    worker_id: str,
    keys: Sequence[tuple[str, str, int]],
    parked: dict[str, tuple[int, int]],
    now: int,
    *,
    limit: int,
    again: bool,
) -> list[Work]:
    """Make `worker_id` the owner of executions that are still free, and read their work.

    `keys` are (root, id, attempt) as `queries.claimable` found them: one that moved on since is
    left out, and so is one that another worker is about to claim. `parked` has (attempt, last seq)
    of coroutines in the caller's memory; where the journal still stands there, only the inbox is
    read. `again`: this was sent before; what it claimed then is handed out now.
    """
    held = await link.row(_HOLD_WORKER, worker_id)
    if held is not None and held[0] is not None:
        return []  # declared dead, and does not know it yet: what it took would be nobody's
    here = [key for key in keys if key[1] in parked]
    others = [key for key in keys if key[1] not in parked]
    claimed: list[Execution] = []
    for statement, some, most in ((_CLAIM_PARKED, here, len(here)), (_CLAIM_FREE, others, limit)):
        if some and most > 0:
            found = await link.fetch(
                statement, *queries.columns(some, 3), worker_id, now, most, again
            )
            claimed += [rows.execution(tuple(record)) for record in found]
    await _set_versions(link, worker_id, [each for each in claimed if each.code_version is None])
    place = {key[1]: n for n, key in enumerate(keys)}
    claimed.sort(key=lambda each: place[each.id])
    return await _works(link, claimed, parked)


async def _set_versions(link: Link, worker_id: str, records: Sequence[Execution]) -> None:
    if records:
        keys = [(each.root_id, each.id) for each in records]
        found = await link.fetch(_SET_VERSIONS, *queries.columns(keys, 2), worker_id)
        known = {record[0]: record[1] for record in found}
        for each in records:
            each.code_version = known.get(each.id)


async def _works(
    link: Link, claimed: Sequence[Execution], parked: dict[str, tuple[int, int]]
) -> list[Work]:
    keys = [(e.root_id, e.id) for e in claimed]
    inbox = await _inboxes(link, keys)
    last = await queries.last_seqs(link, [key for key in keys if key[1] in parked])
    in_place = {
        e.id: last[e.id]
        for e in claimed
        if e.id in parked and parked[e.id] == (e.attempt - 1, last[e.id])
    }
    to_load = [key for key in keys if key[1] not in in_place]
    steps = await queries.many_steps(link, to_load)
    states = await queries.many_states(link, to_load)
    return [
        Work(
            e,
            steps.get(e.id, []),
            states.get(e.id, []),
            inbox.get(e.id, []),
            in_place.get(e.id),
        )
        for e in claimed
    ]


async def _inboxes(link: Link, keys: Sequence[tuple[str, str]]) -> dict[str, list[InboxItem]]:
    found: dict[str, list[InboxItem]] = {}
    for item in await queries.inboxes(link, keys):
        found.setdefault(item.execution_id, []).append(item)
    return found


async def _locked(link: Link, keys: Iterable[tuple[str, str]]) -> list[Execution]:
    """Lock executions, then read them as they are now, by (root, id)."""
    wanted = sorted(set(keys))
    await batch.lock(link, wanted)
    found = await link.fetch(_READ, *queries.columns(wanted, 2)) if wanted else []
    records = [rows.execution(tuple(each)) for each in found]
    return sorted(records, key=lambda each: (each.root_id, each.id))


async def cancel(
    link: Link, execution_id: str, now: int, lining: Lining
) -> tuple[dict[str, str], set[str]]:
    """Ask for the cancellation of an execution and its descendants.

    Returns what happened to each: `cancelled` (nothing of it had run, or nobody can run it),
    `queued` (it waited and is woken to clean up) or `requested` (its owner is told); and the
    workers to tell.
    """
    target = await require(link, execution_id)
    if target.status in transitions.TERMINAL:
        return {}, set()
    found = await link.fetch(TREE, target.root_id, target.id)
    keys = {(root_id, id_) for root_id, id_, _ in found}
    parents = {(root_id, parent) for root_id, _, parent in found if parent is not None}
    done: dict[str, str] = {}
    workers: set[str] = set()
    ended: list[Execution] = []
    asked: list[tuple[str, str, bool]] = []
    for record in await _locked(link, keys | parents):
        if (record.root_id, record.id) not in keys or record.status in transitions.TERMINAL:
            continue
        verdict = transitions.on_cancel(record)
        done[record.id] = verdict
        if record.worker_id is not None:
            workers.add(record.worker_id)
        if verdict == "cancelled":
            ended.append(record)
        else:
            asked.append((record.root_id, record.id, verdict == "queued"))
    cancelled = [transitions.cancelled_failure() for _ in ended]
    await _end(link, ended, Status.CANCELLED, cancelled, now, lining)
    if asked:
        await link.fetch(_ASK, *queries.columns(asked, 3), now)
    return done, workers


async def _end(
    link: Link,
    records: Sequence[Execution],
    status: Status,
    failures: Sequence[Failure],
    now: int,
    lining: Lining,
) -> None:
    """End executions from outside their owners, who are fenced by it; their parents are told.

    Their steps are not undone any more; the failures name them.
    """
    if not records:
        return
    keys = [(each.root_id, each.id) for each in records]
    undoing = await queries.undoing(link, [(r.root_id, r.id) for r in records if r.attempt])
    errors = [
        failure.dump(
            transitions.left_undone(failed, transitions.not_undone(undoing.get(each.id, [])))
        )
        for each, failed in zip(records, failures, strict=True)
    ]
    await link.fetch(_END, *queries.columns(keys, 2), status, now, errors)
    await batch.clear_inboxes(link, keys)
    held = {each.id: (each.workflow_id, each.state_key) for each in records if each.state_key}
    await keyed.lock(link, held.values())
    for root_id, id_ in keys:
        if id_ in held:
            await keyed.leave(link, held[id_], (root_id, id_), lining, completed=False, at=now)
    await link.fetch(_CLEAR_WAITS, *queries.columns(keys, 2))
    await batch.tell_parents(
        link,
        [
            (each.root_id, each.parent_id, each.id, now)
            for each in records
            if each.awaited and each.parent_id is not None
        ],
    )


async def force_cancel(link: Link, deadline: int, now: int, lining: Lining) -> list[str]:
    """End what was asked to cancel, or ran out of time, before `deadline` and has not ended."""
    ids: list[str] = []
    for statement in (queries.OVERDUE_CANCEL, queries.OVERDUE_TIME):
        overdue = {(root_id, id_) for root_id, id_ in await link.fetch(statement, deadline)}
        if not overdue:
            continue
        parents = {
            (each.root_id, each.parent_id)
            for each in [rows.execution(tuple(r)) for r in await _read(link, overdue)]
            if each.parent_id is not None
        }
        records = [
            each
            for each in await _locked(link, overdue | parents)
            if (each.root_id, each.id) in overdue and each.status not in transitions.TERMINAL
        ]
        if statement == queries.OVERDUE_CANCEL:
            status, failures = Status.CANCELLED, [transitions.cancelled_failure() for _ in records]
        else:
            limits = [each.run_timeout_seconds or 0.0 for each in records]
            status = Status.FAILED
            failures = [transitions.timeout_failure(limit) for limit in limits]
        await _end(link, records, status, failures, now, lining)
        ids += [each.id for each in records]
    return ids


async def _read(link: Link, keys: Iterable[tuple[str, str]]) -> list[tuple[object, ...]]:
    return await link.fetch(_READ, *queries.columns(list(keys), 2))


async def block(link: Link, execution_id: str, attempt: int, reason: str) -> bool:
    """Park an execution as `waiting` with a reason, if `attempt` still is its current one."""
    return bool(await link.fetch(_BLOCK, execution_id, attempt, reason))


async def retry(link: Link, execution_id: str, now: int) -> None:
    """Queue a failed execution again from its failed step, or release one that is blocked."""
    found = await require(link, execution_id)
    await batch.lock(link, [(found.root_id, found.id)])
    record = await require(link, execution_id)
    if record.status is Status.WAITING and record.blocked_reason is not None:
        await link.fetch(_RELEASE, record.root_id, record.id)
        return
    if record.blocked_reason == transitions.REMOVING:
        raise ConflictError(f"execution {execution_id!r} is {transitions.REMOVING}; start it anew")
    if record.status is not Status.FAILED:
        raise ConflictError(
            f"execution {execution_id!r} is {record.status}; only a failed execution, or one "
            "that is blocked, can be retried"
        )
    await keyed.enter_again(link, record, "retried")
    journal = await queries.steps(link, record.root_id, execution_id)
    gone = transitions.on_retry(execution_id, journal, record.error)
    await link.fetch(_CUT, record.root_id, execution_id, gone)
    await link.fetch(_RETRY, record.root_id, execution_id, now)


async def enter_key(
    link: Link, execution_id: str, attempt: int, keyed_by: Keyed, lining: Lining
) -> list[StateEntry] | None:
    """Let a claimed execution that was started without its state key take its place.

    Returns the states that it begins with; None if it has to wait for others, or is not `attempt`'s
    any more.
    """
    found = await require(link, execution_id)
    await batch.lock(link, [(found.root_id, found.id)])
    record = await require(link, execution_id)
    owned = record.status is Status.RUNNING and record.attempt == attempt
    if not owned or record.state_key not in (None, keyed_by.key):
        return None
    if record.state_key is None and not await keyed.enter_late(link, record, keyed_by, lining):
        return None
    return await queries.states(link, record.root_id, record.id)


async def require(link: Link, execution_id: str) -> Execution:
    """Read an execution that must exist."""
    found = await queries.execution(link, execution_id)
    if found is None:
        raise ExecutionNotFoundError(execution_id)
    return found


async def register_worker(link: Link, worker: WorkerRecord) -> None:
    """Write or refresh a worker's row."""
    await link.fetch(
        _REGISTER,
        worker.id,
        worker.host,
        worker.pid,
        worker.started_at,
        worker.takes_queue,
        worker.workflows,
        worker.deployment_id,
        worker.versions,
    )
    await link.fetch(_FORGET_WORKERS, worker.started_at - FORGOTTEN_US)


async def stop_worker(
    link: Link, worker_id: str, now: int, *, crashed: bool, crashes_max: int, again: bool
) -> int:
    """Mark a worker as gone and hand back all that it owned; returns how many executions.

    After a crash each execution counts it; one that died `crashes_max` times in a row without a
    new row in its journal is parked with a reason (JOURNAL 10). `again` hands back what a worker
    that was declared dead started before it knew.
    """
    if not await link.fetch(_STOP, worker_id, now) and not again:
        return 0
    owned = [(root_id, id_) for root_id, id_ in await link.fetch(_OWNED, worker_id)]
    if owned:
        arrays = queries.columns(owned, 2)
        if crashed:
            await link.fetch(_COUNT_CRASHES, *arrays)
        reason = transitions.crash_loop_reason(crashes_max)
        await link.fetch(_HAND_BACK, *arrays, crashes_max, reason)
    return len(owned)


async def sort_out(link: Link, before: int) -> tuple[int, int]:
    """Release what was blocked for want of a worker that is here now; block what nobody may run.

    What is due since `before` and no live worker may run, for want of the workflow, the deployment
    or the code, is parked as `waiting` with a reason. Returns (released, blocked).
    """
    released, blocked = versions.sort_out(
        await queries.live_workers(link),
        await queries.blocked_needs(link),
        await queries.due_needs(link, before),
    )
    counts = [0, 0]
    for need in released:
        found = await link.fetch(
            _RELEASE_NEED, need.workflow_id, need.deployment_id, need.code_version
        )
        counts[0] += len(found)
    for need, why in blocked:
        found = await link.fetch(
            _BLOCK_NEED, need.workflow_id, need.deployment_id, need.code_version, before, why
        )
        counts[1] += len(found)
    return counts[0], counts[1]
