"""Topics and their events: publishing inside a batch, reading, and the topics of workflows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from polos.core import events as rules
from polos.core import lifecycle, streams
from polos.core.model import Event, Published, Topic
from polos.store import rows, values
from polos.store.protocol import EVENTS_AGE_ROWS_MAX, TOPICS_MAX

_COUNT = (
    "INSERT INTO topic (name, last) VALUES (?, ?) ON CONFLICT (name) DO UPDATE "
    "SET last = last + excluded.last RETURNING last"
)
_EVENT = f"INSERT INTO event ({values.EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_WAITS = f"SELECT {rows.WAIT_COLUMNS} FROM wait WHERE topic = ? ORDER BY at"
_ITEM = (
    "INSERT INTO inbox (root_id, execution_id, id, kind, ref, at, body) "
    "SELECT ?1, ?2, ?3, 'event', ?4, ?5, ?6 FROM execution WHERE root_id = ?1 AND id = ?2 "
    "AND status IN ('queued', 'running', 'waiting') "
    "ON CONFLICT (root_id, execution_id, id) DO NOTHING"
)
_OVER = "DELETE FROM wait WHERE root_id = ? AND execution_id = ? AND seq = ?"
_WAKE = (
    "UPDATE execution SET status = 'queued', wake_at = ? "
    "WHERE root_id = ? AND id = ? AND status = 'waiting' AND blocked_reason IS NULL"
)
_CURSOR = "SELECT cursor FROM topic WHERE name = ?"
_MOVE = "UPDATE topic SET cursor = ? WHERE name = ?"
_TREE = f"SELECT {rows.EXECUTION_COLUMNS} FROM execution WHERE root_id = ? ORDER BY id"
_STEPS = (
    f"SELECT {rows.STEP_COLUMNS} FROM step WHERE root_id = ? AND execution_id = ? AND seq > ? "
    "ORDER BY seq"
)
_AFTER = (
    f"SELECT {values.EVENT_COLUMNS} FROM event WHERE topic = ? AND seq > ? ORDER BY seq LIMIT ?"
)
_FIRST_SINCE = "SELECT min(seq) FROM event WHERE topic = ? AND at > ?"
_LAST = "SELECT last FROM topic WHERE name = ?"
_TOPICS = (
    "SELECT t.name, t.last, (SELECT count(*) FROM event e WHERE e.topic = t.name), "
    "(SELECT max(at) FROM event e WHERE e.topic = t.name) FROM topic t WHERE t.last > 0 "
    "ORDER BY t.name"
)
# The upper bound is the prefix with its last character raised by one.
_WATCHED = (
    "SELECT DISTINCT topic FROM wait WHERE topic IS NOT NULL AND topic > ?1 AND topic < ?2 UNION "
    "SELECT topic FROM event_trigger WHERE topic > ?1 AND topic < ?2"
)
_NAMES = "SELECT name FROM topic WHERE name > ? ORDER BY name LIMIT ?"
# Only waited for, and by nobody any more.
_FORGET = (
    "DELETE FROM topic WHERE name = ?1 AND last = 0 AND cursor IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM wait WHERE topic = ?1)"
)
_PRUNE = (
    "DELETE FROM event WHERE (topic, seq) IN (SELECT topic, seq FROM event INDEXED BY "
    "event_by_time WHERE topic = ? AND at < ? AND root_id IS NULL LIMIT ?)"
)


# -- writing (inside the caller's transaction) ----------------------------------------------------


def publish(connection: apsw.Connection, events: Sequence[Event], published: Published) -> None:
    """Number and store events, and bring them to those who wait."""
    by_topic: dict[str, list[Event]] = {}
    for event in events:
        by_topic.setdefault(event.topic, []).append(event)
    for topic, some in by_topic.items():
        root_id = rules.root_of(topic)
        if root_id is not None:  # what happened before comes before
            derive(connection, root_id, published)
        if any(isinstance(event, streams.StreamEvent) for event in some):
            _stream(connection, topic, some, published)
        else:
            _append(connection, topic, some, published)


def _stream(
    connection: apsw.Connection, topic: str, events: Sequence[Event], published: Published
) -> None:
    """Append what is new of that to the topic of an execution's chunks."""
    cursor: Any = connection.execute(_CURSOR, (topic,)).get
    new, cursor = streams.admit(cursor, events)
    if new:
        _append(connection, topic, new, published)
        connection.execute(_MOVE, (cursor, topic))


def _append(
    connection: apsw.Connection, topic: str, events: Sequence[Event], published: Published
) -> None:
    last = int(next(iter(connection.execute(_COUNT, (topic, len(events)))))[0])
    for seq, event in enumerate(events, last - len(events) + 1):
        event.seq = seq
    connection.executemany(_EVENT, [values.event(event) for event in events])
    published.events += events
    found = connection.execute(_WAITS, (topic,)).fetchall()
    if found:
        _deliver(
            connection,
            rules.deliveries([rows.wait(tuple(each)) for each in found], events),
            published,
        )


def _deliver(
    connection: apsw.Connection, deliveries: Sequence[rules.Delivery], published: Published
) -> None:
    for each in deliveries:
        wait, event = each.wait, each.event
        key = (wait.root_id, wait.execution_id)
        item = (*key, each.id, rules.item_ref(wait.seq), event.at, rules.envelope(event))
        connection.execute(_ITEM, item)
        if each.ends:
            connection.execute(_OVER, (*key, wait.seq))
        connection.execute(_WAKE, (event.at, *key))
        published.woken.add(wait.execution_id)


def derive(connection: apsw.Connection, root_id: str, published: Published) -> None:
    """Append what is new in the journals of a tree to its topic."""
    new = _derived(connection, root_id)
    if new is not None:
        topic, cursor, events = new
        _append(connection, topic, events, published)
        connection.execute(_MOVE, (cursor, topic))


def is_behind(connection: apsw.Connection, root_id: str) -> bool:
    """Say whether the journals of a tree have what its topic has not."""
    return _derived(connection, root_id) is not None


def _derived(connection: apsw.Connection, root_id: str) -> tuple[str, str, list[Event]] | None:
    """Return what the topic of a tree lacks: its name, the new cursor and the events."""
    found = connection.execute(_TREE, (root_id,)).fetchall()
    executions = [rows.execution(tuple(each)) for each in found]
    if not executions:
        return None
    topic = rules.workflow_topic(executions[0].root_workflow_id, root_id)
    known: Any = connection.execute(_CURSOR, (topic,)).fetchone()
    cursor = lifecycle.load(None if known is None else known[0])
    journals = {
        id_: [rows.step(tuple(r)) for r in connection.execute(_STEPS, (root_id, id_, seq))]
        for id_, seq in lifecycle.wanted(cursor, executions).items()
    }
    events = lifecycle.derive(cursor, executions, journals)
    return (topic, lifecycle.dump(cursor), events) if events else None


def prune(connection: apsw.Connection, before: int, behind: str) -> tuple[int, str]:
    """Remove some events of ordinary topics that were published before a moment.

    It goes on behind a topic; returns how many, and the topic behind which the next part begins,
    or "" at the end.
    """
    removed, name = 0, behind
    names: list[Any] = connection.execute(_NAMES, (behind, TOPICS_MAX)).fetchall()
    for (name,) in names:
        connection.execute(_PRUNE, (name, before, EVENTS_AGE_ROWS_MAX - removed))
        gone = connection.changes()
        removed += gone
        if removed >= EVENTS_AGE_ROWS_MAX:
            return removed, behind
        connection.execute(_FORGET, (name,))
        behind = name
    return removed, name if len(names) == TOPICS_MAX else ""


# -- reading --------------------------------------------------------------------------------------


def after(connection: apsw.Connection, topic: str, seq: int, limit: int) -> list[Event]:
    """Read the events of a topic behind one, in order."""
    found: list[Any] = connection.execute(_AFTER, (topic, seq, limit)).fetchall()
    return [rows.event(tuple(each)) for each in found]


def seq_at(connection: apsw.Connection, topic: str, at: int) -> int:
    """Return the number behind which a topic has all that was published after a moment."""
    first: Any = connection.execute(_FIRST_SINCE, (topic, at)).get
    return last(connection, topic) if first is None else int(first) - 1


def last(connection: apsw.Connection, topic: str) -> int:
    """Return the number of a topic's latest event; 0 if it has none."""
    found: Any = connection.execute(_LAST, (topic,)).get
    return int(found or 0)


def last_seqs(connection: apsw.Connection, topics: Iterable[str]) -> dict[str, int]:
    """Return the numbers of the latest events of topics."""
    return {topic: last(connection, topic) for topic in topics}


def has_topics(connection: apsw.Connection) -> bool:
    """Say whether there is any topic."""
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM topic)").get)


def topics(connection: apsw.Connection) -> list[Topic]:
    """Read all topics that have, or had, events."""
    found: list[Any] = connection.execute(_TOPICS).fetchall()
    return [Topic(*each) for each in found]


def watched(connection: apsw.Connection) -> list[str]:
    """Return the topics of workflows that somebody waits for or is triggered by."""
    bounds = (rules.WORKFLOW, rules.WORKFLOW[:-1] + chr(ord(rules.WORKFLOW[-1]) + 1))
    return [str(topic) for (topic,) in connection.execute(_WATCHED, bounds).fetchall()]
