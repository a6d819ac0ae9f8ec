"""What is old enough to go, and its removal: whole trees of executions, a bounded part at a time.

A tree goes when its root has ended, is old enough, and nothing under it is still open. Whatever a
tree leaves in other tables is listed in `TREE_TABLES`: a new table of that kind is added there.
"""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.events import stream_topic, workflow_topic
from polos.core.transitions import REMOVING
from polos.core.upkeep import Pruned
from polos.store.postgres.links import Link

TREE_TABLES = ("blob_ref", "cut_step", "field_index", "inbox", "state", "step", "wait")
"""Tables of what belongs to an execution, keyed by (root_id, execution_id, …)."""

_FINISHED = "e.parent_id IS NULL AND e.completed_at IS NOT NULL"
# An aggregate is asked for each tree by its key; NOT EXISTS might be planned as a join with all.
DUE = (
    f"SELECT e.completed_at, e.root_id FROM {{s}}.execution e WHERE {_FINISHED} "
    "AND e.workflow_id = $1 AND e.completed_at < $2 AND (e.completed_at, e.root_id) > ($3, $4) "
    "AND ($5::text[] IS NULL OR e.status = ANY($5::text[])) "
    "AND (SELECT bool_and(o.completed_at IS NOT NULL) FROM {s}.execution o "
    "WHERE o.root_id = e.root_id) ORDER BY e.completed_at, e.root_id LIMIT $6"
)
# One probe for each workflow, where DISTINCT would read every entry of the index.
NEXT_WORKFLOW = (
    f"SELECT e.workflow_id FROM {{s}}.execution e WHERE {_FINISHED} AND e.workflow_id > $1 "
    "ORDER BY e.workflow_id, e.completed_at LIMIT 1"
)
# Nobody starts, retries or writes in a tree whose rows are locked and have all ended.
LOCK_TREES = (
    "SELECT root_id, id, parent_id, completed_at FROM {s}.execution "
    "WHERE root_id = ANY($1::text[]) ORDER BY root_id, id FOR UPDATE"
)
WEIGH = "SELECT root_id, count(*) FROM ({}) t GROUP BY root_id".format(
    " UNION ALL ".join(
        f"SELECT root_id FROM {{s}}.{table} WHERE root_id = ANY($1::text[])"
        for table in (*TREE_TABLES, "event", "execution")
    )
)
_COUNT = "SELECT count(*) FROM {s}.execution WHERE root_id = ANY($1::text[])"
EVENTS = (
    "DELETE FROM {s}.event e USING (SELECT topic, seq FROM {s}.event WHERE root_id = $1 "
    "LIMIT $2) k WHERE e.root_id = $1 AND e.topic = k.topic AND e.seq = k.seq RETURNING 1"
)
MORE_EVENTS = "SELECT 1 FROM {s}.event WHERE root_id = $1 LIMIT 1"
_TOPICS = "DELETE FROM {s}.topic WHERE name = ANY($1::text[])"
_WORKFLOW = "SELECT root_workflow_id FROM {s}.execution WHERE root_id = $1 AND id = $1"
_MARK = "UPDATE {s}.execution SET blocked_reason = $2 WHERE root_id = $1 AND id = $1"


def _remove(which: str, own: str) -> str:
    """Return the statement that removes from all tables, and counts executions and rows."""
    parts = [
        f"{table} AS (DELETE FROM {{s}}.{table} WHERE {which} RETURNING 1)" for table in TREE_TABLES
    ]
    parts.append(f"execution AS (DELETE FROM {{s}}.execution WHERE {own} RETURNING 1)")
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in (*TREE_TABLES, "execution"))
    return f"WITH {', '.join(parts)} SELECT (SELECT count(*) FROM execution), {counts}"


REMOVE_TREES = _remove("root_id = ANY($1::text[])", "root_id = ANY($1::text[])")
REMOVE_EXECUTIONS = _remove(
    "root_id = $1 AND execution_id = ANY($2::text[])", "root_id = $1 AND id = ANY($2::text[])"
)


async def finished_workflows(link: Link) -> list[str]:
    """Return the ids of the workflows that have finished roots."""
    found: list[str] = []
    while row := await link.row(NEXT_WORKFLOW, found[-1] if found else ""):
        found.append(row[0])
    return found


async def due(
    link: Link,
    workflow_id: str,
    before: int,
    statuses: Sequence[str] | None,
    after: tuple[int, str] | None,
    limit: int,
) -> list[tuple[int, str]]:
    """Find trees of a workflow that ended before `before`, the oldest first."""
    wanted = None if statuses is None else list(statuses)
    found = await link.fetch(DUE, workflow_id, before, *(after or (-1, "")), wanted, limit)
    return [(completed_at, root_id) for completed_at, root_id in found]


async def weigh(link: Link, roots: Sequence[str]) -> Pruned:
    """Count what `prune` would remove with these trees."""
    rows = sum(count for _, count in await link.fetch(WEIGH, list(roots)))
    executions = (await link.row(_COUNT, list(roots)))[0]
    return Pruned(trees=len(roots), executions=executions, rows=rows)


async def prune(link: Link, roots: Sequence[str], before: int, rows_max: int) -> Pruned:
    """Remove those of the trees that still are due; `left` names those for a further call."""
    trees = await _lock_due(link, roots, before)
    weights: dict[str, int] = dict(await link.fetch(WEIGH, list(trees))) if trees else {}
    part = max(rows_max // 10, 1)
    whole: list[str] = []
    rows = 0
    done = Pruned()
    for place, root_id in enumerate(roots):
        if rows >= rows_max:
            done.left = list(roots[place:])
            break
        if root_id not in trees:
            continue  # retried meanwhile, or removed by somebody else
        if await _remove_events(link, root_id, max(rows_max - rows, 1), done):
            done.left = list(roots[place:])
            break
        below = sorted(trees[root_id], reverse=True)
        if len(below) > part:
            await link.fetch(_MARK, root_id, REMOVING)
            await _remove_streams(link, root_id, below[:part])
            _add(done, await link.row(REMOVE_EXECUTIONS, root_id, below[:part]))
            done.left = list(roots[place:])
            break
        whole.append(root_id)
        rows += weights[root_id]
    for root_id in whole:
        await _remove_streams(link, root_id, [root_id, *trees[root_id]])
    if whole:
        _add(done, await link.row(REMOVE_TREES, whole))
        done.trees = len(whole)
    return done


async def _remove_events(link: Link, root_id: str, rows_max: int, done: Pruned) -> bool:
    """Remove what is on the topics of a tree, with the topics; True: the rest is for later."""
    removed = len(await link.fetch(EVENTS, root_id, rows_max))
    done.rows += removed
    if removed and await link.row(MORE_EVENTS, root_id):
        await link.fetch(_MARK, root_id, REMOVING)
        return True
    root = await link.row(_WORKFLOW, root_id)
    if root is not None:
        await link.fetch(_TOPICS, [workflow_topic(root[0], root_id)])
    return False


async def _remove_streams(link: Link, root_id: str, ids: Sequence[str]) -> None:
    await link.fetch(_TOPICS, [stream_topic(root_id, each) for each in ids])


async def _lock_due(link: Link, roots: Sequence[str], before: int) -> dict[str, list[str]]:
    """Lock the trees; return those that are due, each with the ids below its root."""
    trees: dict[str, list[str]] = {}
    kept: set[str] = set()
    for root_id, id_, parent_id, completed_at in await link.fetch(LOCK_TREES, list(roots)):
        below = trees.setdefault(root_id, [])
        is_root = id_ == root_id
        if not is_root:
            below.append(id_)
        too_young = is_root and (parent_id is not None or (completed_at or 0) >= before)
        if completed_at is None or too_young:
            kept.add(root_id)
    return {root_id: below for root_id, below in trees.items() if root_id not in kept}


def _add(done: Pruned, counts: tuple[int, int]) -> None:
    done.executions += counts[0]
    done.rows += counts[1]
