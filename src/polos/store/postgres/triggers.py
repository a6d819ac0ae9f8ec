"""Topics whose events start executions: each event exactly once, whoever sees it first."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.triggers import Firing, Trigger, Triggered
from polos.store.lining import Lining
from polos.store.postgres import batch, events
from polos.store.postgres.links import Link

_REGISTER = (
    "INSERT INTO {s}.event_trigger (workflow_id, topic, last, batch_size, batch_timeout_seconds) "
    "VALUES ($1, $2, coalesce((SELECT last FROM {s}.topic WHERE name = $2), 0), $3, $4) "
    "ON CONFLICT (workflow_id, topic) DO UPDATE SET batch_size = excluded.batch_size, "
    "batch_timeout_seconds = excluded.batch_timeout_seconds"
)
_LAST = "SELECT last FROM {s}.event_trigger WHERE workflow_id = $1 AND topic = $2"
_MOVE = (
    "UPDATE {s}.event_trigger SET last = $1 WHERE workflow_id = $2 AND topic = $3 AND last = $4 "
    "RETURNING 1"
)
_STARTED = "SELECT 1 FROM {s}.execution WHERE root_id = $1 AND id = $1"


async def register(link: Link, triggers: Sequence[Trigger]) -> None:
    """Enter triggers; one that is new begins with the next event, others keep their place."""
    for each in sorted(triggers, key=lambda t: (t.workflow_id, t.topic)):
        seconds = each.batch_timeout_seconds
        await link.fetch(_REGISTER, each.workflow_id, each.topic, each.batch_size, seconds)


async def pending(link: Link, workflow_id: str, topic: str, limit: int) -> Triggered | None:
    """Read the events that are to start executions of a workflow; None: it has no such trigger."""
    found = await link.row(_LAST, workflow_id, topic)
    if found is None:
        return None
    return Triggered(found[0], await events.after(link, topic, found[0], limit))


async def fire(link: Link, firing: Firing, lining: Lining, *, again: bool) -> bool:
    """Start executions for events, unless somebody has: then False.

    `again`: this was sent before; what it started then counts as started now.
    """
    place = (firing.to, firing.workflow_id, firing.topic, firing.last)
    if not await link.fetch(_MOVE, *place):
        return again and bool(await link.fetch(_STARTED, firing.starts[0].id))
    await batch.write(link, firing.starts, lining, again=False)
    return True
