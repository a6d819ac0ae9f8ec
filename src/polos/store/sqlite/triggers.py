"""Topics whose events start executions: each event exactly once, whoever sees it first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import apsw

from polos.core.triggers import Firing, Trigger, Triggered
from polos.store.lining import Lining
from polos.store.sqlite import batch, events

_REGISTER = (
    "INSERT INTO event_trigger (workflow_id, topic, last, batch_size, batch_timeout_seconds) "
    "VALUES (?1, ?2, coalesce((SELECT last FROM topic WHERE name = ?2), 0), ?3, ?4) "
    "ON CONFLICT (workflow_id, topic) DO UPDATE SET batch_size = excluded.batch_size, "
    "batch_timeout_seconds = excluded.batch_timeout_seconds"
)
_LAST = "SELECT last FROM event_trigger WHERE workflow_id = ? AND topic = ?"
_MOVE = "UPDATE event_trigger SET last = ? WHERE workflow_id = ? AND topic = ? AND last = ?"
_IS_DUE = (
    "SELECT EXISTS (SELECT 1 FROM json_each(?) w CROSS JOIN event_trigger t JOIN topic p "
    "ON p.name = t.topic WHERE t.workflow_id = w.value AND p.last > t.last)"
)


def register(connection: apsw.Connection, triggers: Sequence[Trigger]) -> None:
    """Enter triggers; one that is new begins with the next event, others keep their place."""
    connection.executemany(
        _REGISTER,
        [(t.workflow_id, t.topic, t.batch_size, t.batch_timeout_seconds) for t in triggers],
    )


def pending(
    connection: apsw.Connection, workflow_id: str, topic: str, limit: int
) -> Triggered | None:
    """Read the events that are to start executions of a workflow; None: it has no such trigger."""
    last: Any = connection.execute(_LAST, (workflow_id, topic)).get
    return None if last is None else Triggered(last, events.after(connection, topic, last, limit))


def fire(connection: apsw.Connection, firing: Firing, lining: Lining) -> bool:
    """Start executions for events, unless somebody has: then False."""
    place = (firing.to, firing.workflow_id, firing.topic, firing.last)
    connection.execute(_MOVE, place)
    if not connection.changes():
        return False
    batch.write(connection, firing.starts, lining)
    return True


def is_due(connection: apsw.Connection, workflows: Sequence[str]) -> bool:
    """Say whether there are events for triggers of these workflows."""
    return bool(connection.execute(_IS_DUE, (json.dumps(list(workflows)),)).get)
