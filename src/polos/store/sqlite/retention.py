"""What is old enough to go, and its removal: whole trees of executions, a bounded part at a time.

A tree goes when its root has ended, is old enough, and nothing under it is still open. Whatever a
tree leaves in other tables is listed in `TREE_TABLES`: a new table of that kind is added there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from polos.core.events import STREAM, workflow_topic
from polos.core.transitions import REMOVING
from polos.core.upkeep import Pruned

TREE_TABLES = ("blob_ref", "cut_step", "field_index", "inbox", "state", "step", "wait")
"""Tables of what belongs to an execution, keyed by (root_id, execution_id, …)."""

# The planner cannot know that the partial index is the small one: it is named.
_FINISHED = (
    "FROM execution e INDEXED BY execution_finished "
    "WHERE e.parent_id IS NULL AND e.completed_at IS NOT NULL"
)
_ALL_ENDED = (
    "NOT EXISTS (SELECT 1 FROM execution o WHERE o.root_id = e.root_id AND o.completed_at IS NULL)"
)
_DUE = (
    f"SELECT e.completed_at, e.root_id {_FINISHED} AND e.workflow_id = ?1 "
    "AND e.completed_at < ?2 AND (e.completed_at, e.root_id) > (?3, ?4) "
    "AND (?5 IS NULL OR e.status IN (SELECT value FROM json_each(?5))) "
    f"AND {_ALL_ENDED} ORDER BY e.completed_at, e.root_id LIMIT ?6"
)
# One probe for each workflow, where DISTINCT would read every entry of the index.
_NEXT_WORKFLOW = f"SELECT e.workflow_id {_FINISHED} AND e.workflow_id > ? ORDER BY 1 LIMIT 1"
_IS_DUE = (
    "SELECT 1 FROM execution e WHERE e.root_id = ?1 AND e.id = ?1 AND e.parent_id IS NULL "
    f"AND e.completed_at < ?2 AND {_ALL_ENDED}"
)
_BELOW = "SELECT id FROM execution WHERE root_id = ?1 AND id <> ?1 ORDER BY id DESC LIMIT ?2"
_EVENTS = (
    "DELETE FROM event WHERE (topic, seq) IN (SELECT topic, seq FROM event INDEXED BY "
    "event_by_root WHERE root_id = ? LIMIT ?)"
)
_MORE_EVENTS = "SELECT 1 FROM event INDEXED BY event_by_root WHERE root_id = ? LIMIT 1"
_STREAMS = (
    f"DELETE FROM topic WHERE name IN (SELECT '{STREAM}' || root_id || '/' || id FROM execution "
    "WHERE root_id = ?1 AND (?2 IS NULL OR id = ?2))"
)
_WORKFLOW = "SELECT root_workflow_id FROM execution WHERE root_id = ?1 AND id = ?1"
_MARK = "UPDATE execution SET blocked_reason = ?2 WHERE root_id = ?1 AND id = ?1"

Position = tuple[int, str]
"""Where a list of finished trees goes on: the last one's (completed_at, root)."""


def finished_workflows(connection: apsw.Connection) -> list[str]:
    """Return the ids of the workflows that have finished roots."""
    found: list[str] = []
    while row := connection.execute(_NEXT_WORKFLOW, (found[-1] if found else "",)).fetchone():
        found.append(str(row[0]))
    return found


def due(
    connection: apsw.Connection,
    workflow_id: str,
    before: int,
    statuses: Sequence[str] | None,
    after: Position | None,
    limit: int,
) -> list[Position]:
    """Find trees of a workflow that ended before `before`, the oldest first."""
    wanted = None if statuses is None else json.dumps(list(statuses))
    arguments = (workflow_id, before, *(after or (-1, "")), wanted, limit)
    found: list[Any] = connection.execute(_DUE, arguments).fetchall()
    return [(completed_at, root_id) for completed_at, root_id in found]


def weigh(connection: apsw.Connection, roots: Sequence[str]) -> Pruned:
    """Count what `prune` would remove with these trees."""
    found = Pruned(trees=len(roots))
    for root_id in roots:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table} WHERE root_id = ?", (root_id,)).get
            for table in (*TREE_TABLES, "event", "execution")
        ]
        found.executions += counts[-1]
        found.rows += sum(counts)
    return found


def prune(connection: apsw.Connection, roots: Sequence[str], before: int, rows_max: int) -> Pruned:
    """Remove those of the trees that still are due; `left` names those for a further call.

    The removal is over once `rows_max` rows are gone. A tree of more executions than a tenth of
    that goes in parts, its root last; marked, so that it cannot be retried meanwhile.
    """
    part = max(rows_max // 10, 1)
    done = Pruned()
    for place, root_id in enumerate(roots):
        if done.rows >= rows_max:
            done.left = list(roots[place:])
            break
        if not connection.execute(_IS_DUE, (root_id, before)).fetchone():
            continue  # retried meanwhile, or removed by somebody else
        if _remove_events(connection, root_id, rows_max - done.rows, done):
            done.left = list(roots[place:])
            break
        below: list[Any] = connection.execute(_BELOW, (root_id, part + 1)).fetchall()
        if len(below) > part:
            ids = [str(row[0]) for row in below[:part]]
            connection.execute(_MARK, (root_id, REMOVING))
            _remove_executions(connection, root_id, ids, done)
            done.left = list(roots[place:])
            break
        _remove_tree(connection, root_id, done)
    return done


def _remove_events(connection: apsw.Connection, root_id: str, rows_max: int, done: Pruned) -> bool:
    """Remove what is on the topics of a tree, with the topics; True: the rest is for later."""
    connection.execute(_EVENTS, (root_id, rows_max))
    removed = connection.changes()
    done.rows += removed
    if removed and connection.execute(_MORE_EVENTS, (root_id,)).fetchone():
        connection.execute(_MARK, (root_id, REMOVING))
        return True
    workflow_id: Any = connection.execute(_WORKFLOW, (root_id,)).get
    topic = workflow_topic(str(workflow_id), root_id)
    connection.execute("DELETE FROM topic WHERE name = ?", (topic,))
    return False


def _remove_tree(connection: apsw.Connection, root_id: str, done: Pruned) -> None:
    connection.execute(_STREAMS, (root_id, None))
    for table in TREE_TABLES:
        connection.execute(f"DELETE FROM {table} WHERE root_id = ?", (root_id,))
        done.rows += connection.changes()
    connection.execute("DELETE FROM execution WHERE root_id = ?", (root_id,))
    done.executions += connection.changes()
    done.rows += connection.changes()
    done.trees += 1


def _remove_executions(
    connection: apsw.Connection, root_id: str, ids: Sequence[str], done: Pruned
) -> None:
    keys = [(root_id, each) for each in ids]
    connection.executemany(_STREAMS, keys)
    before = connection.total_changes()
    for table in TREE_TABLES:
        connection.executemany(f"DELETE FROM {table} WHERE root_id = ? AND execution_id = ?", keys)
    connection.executemany("DELETE FROM execution WHERE root_id = ? AND id = ?", keys)
    done.executions += len(ids)
    done.rows += connection.total_changes() - before
