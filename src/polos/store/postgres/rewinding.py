"""Going back: resets of executions in place, and the journal rows that they cut off.

The reset runs inside a transaction that the caller opened, and locks the execution first.
"""

from __future__ import annotations

from polos.core import rewind
from polos.core.model import Change, Row
from polos.core.rewind import Rewound
from polos.store import rows, values
from polos.store.lining import Lining
from polos.store.postgres import batch, clear, indexing, keyed, queries, verbs
from polos.store.postgres import statements as sql
from polos.store.postgres.links import Link

_NUMBER = (
    "SELECT coalesce(max(cut), 0) + 1 FROM {s}.cut_step WHERE root_id = $1 AND execution_id = $2"
)
_OF_SEQS = "WHERE root_id = $1 AND execution_id = $2 AND seq = ANY($3::bigint[])"
_KEEP = (
    f"INSERT INTO {{s}}.cut_step (cut, cut_at, {values.STEP_COLUMNS}) "
    f"SELECT $4::bigint, $5::bigint, {values.STEP_COLUMNS} FROM {{s}}.step {_OF_SEQS}"
)
_CUT = f"DELETE FROM {{s}}.step {_OF_SEQS}"
_CUT_WAITS = f"DELETE FROM {{s}}.wait {_OF_SEQS}"
# Nothing that stays waits for a child or an answer; an answer that came early is kept.
_CUT_INBOX = (
    "DELETE FROM {s}.inbox WHERE root_id = $1 AND execution_id = $2 AND kind IN ('child', 'resume')"
)
_CHILDREN = (
    "SELECT id FROM {s}.execution WHERE root_id = $1 AND parent_id = $2 AND completed_at IS NULL "
    "AND parent_key = ANY($3::text[]) ORDER BY id"
)
_RESET = (
    "UPDATE {s}.execution SET status = 'queued', wake_at = 0, attempt = attempt + 1, "
    "result = NULL, error = NULL, result_type = NULL, completed_at = NULL, "
    "cancel_requested_at = NULL, cancel_delivered_at = NULL, blocked_reason = NULL, crashes = 0, "
    "crash_mark = -1, retry_count = retry_count + 1, "
    "run_timeout_seconds = run_timeout_seconds + ($3::bigint - created_at) / 1e6::float8 "
    "WHERE root_id = $1 AND id = $2"
)
_CUT_STEPS = (
    f"SELECT cut, cut_at, {rows.STEP_COLUMNS} FROM {{s}}.cut_step "
    "WHERE root_id = $1 AND execution_id = $2 ORDER BY cut, seq"
)


async def reset(
    link: Link, execution_id: str, step_key: str, now: int, lining: Lining, *, dry_run: bool
) -> tuple[Rewound, set[str]]:
    """Let an execution go on behind one of its steps; what came after is kept as history.

    Also returns the workers to tell that children are asked to end.
    """
    found = await verbs.require(link, execution_id)
    await batch.lock(link, [(found.root_id, found.id)])
    record = await verbs.require(link, execution_id)
    rewind.demand_resettable(record)
    key = (record.root_id, record.id)
    cut = rewind.cut_behind(record, await queries.steps(link, *key), step_key)
    if record.completed_at is not None:
        await keyed.check_again(link, record, "reset")
    number = (await link.row(_NUMBER, *key))[0]
    seqs = [row.seq for row in cut.gone]
    gone = [row.key for row in cut.gone if row.kind in rewind.EFFECTS]
    children = [id_ for (id_,) in await link.fetch(_CHILDREN, *key, gone)]
    if dry_run:
        return Rewound(cut, number, dict.fromkeys(children, "open")), set()
    await link.fetch(_KEEP, *key, seqs, number, now)
    for statement in (_CUT, _CUT_WAITS):
        await link.fetch(statement, *key, seqs)
    await link.fetch(_CUT_INBOX, *key)
    done: dict[str, str] = {}
    workers: set[str] = set()
    for child in children:
        verdicts, told = await verbs.cancel(link, child, now, lining)
        done |= verdicts
        workers |= told
    await _go_back(link, record.workflow_id, key, cut.state_version, step_key, now, lining)
    if record.completed_at is not None:
        await keyed.enter_again(link, record, "reset")
    await link.fetch(_RESET, *key, now)
    return Rewound(cut, number, done), workers


async def _go_back(
    link: Link,
    workflow_id: str,
    key: tuple[str, str],
    version: int,
    step_key: str,
    now: int,
    lining: Lining,
) -> None:
    """Record the state of an earlier version anew, as the next one."""
    latest = await clear.states(link, lining, key)
    wanted = await clear.states(link, lining, key, version)
    entry, fields = rewind.back(latest, wanted, step_key, now)
    if entry is None:
        return
    change = await clear.line(link, lining, Change.of_state(key, entry))
    await link.fetch(sql.STATES, *queries.columns([values.state(*key, change.states[0])], 10))
    entries = await indexing.of_state(link, workflow_id, fields)
    await indexing.write(link, [(*key, each) for each in entries])


async def cut_steps(link: Link, root_id: str, execution_id: str) -> list[tuple[int, int, Row]]:
    """Read the rows that resets cut off: (number of the reset, its moment, row)."""
    found = await link.fetch(_CUT_STEPS, root_id, execution_id)
    return [(number, at, rows.step(tuple(rest))) for number, at, *rest in found]
