"""Where the recorded states of executions stand."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.watching import Head
from polos.store.postgres.links import Link

# Who waits for others with its state key has no state yet: it begins with what they leave.
_BEHIND = "e.state_key IS NOT NULL AND e.status = 'queued' AND e.wake_at IS NULL AND e.attempt = 0"
_HEAD = (
    f"e.id, e.root_id, e.workflow_id, CASE WHEN {_BEHIND} THEN -1 ELSE "
    "coalesce((SELECT s.version FROM {s}.state s WHERE s.root_id = e.root_id "
    "AND s.execution_id = e.id ORDER BY s.version DESC LIMIT 1), -1) END, "
    "e.completed_at, e.created_at FROM {s}.execution e"
)
HEADS = f"SELECT {_HEAD} WHERE e.id = ANY($1::text[])"
_OF = "($2::text IS NULL OR e.workflow_id = $2)"
# Two ways, each by an index of its own.
CURRENT = (
    f"SELECT {_HEAD} WHERE e.completed_at IS NULL AND {_OF} UNION "
    f"SELECT {_HEAD} WHERE e.id >= $1 AND {_OF} ORDER BY 1"
)

# Whoever writes takes the next number of a transaction. Each beat of a worker takes one too, and
# counts; what is in progress is in the list. So this stays as it is while all that is written is
# beats. Where it is wrong, by a worker that came or went, a watcher looks once too often.
WATERMARK = (
    "SELECT (pg_snapshot_xmax(s)::text::bigint - (SELECT coalesce(sum(count), 0) FROM {s}.beat))"
    "::text || ':' || split_part(s::text, ':', 3) FROM pg_current_snapshot() s"
)


async def watermark(link: Link) -> str:
    """Return text that is another one once anybody has written anything but a beat."""
    ((found,),) = await link.fetch(WATERMARK)
    return found


async def heads(link: Link, ids: Sequence[str]) -> list[Head]:
    """Read where the states of executions stand."""
    return [Head(*record) for record in await link.fetch(HEADS, list(ids))]


async def current(link: Link, workflow_id: str | None, first_id: str) -> list[Head]:
    """Read where those stand that have not ended, and those from an id on, by id."""
    return [Head(*record) for record in await link.fetch(CURRENT, first_id, workflow_id)]
