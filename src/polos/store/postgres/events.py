"""Topics and their events: publishing inside a batch, reading, and the topics of workflows.

A publisher locks, behind the executions, the counters of its topics by name; so does a commit that
opens a wait for a topic. Whoever comes second sees what the first one wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from polos.core import events as rules
from polos.core import lifecycle, streams
from polos.core.model import Event, Execution, Published, Row, Topic
from polos.store import rows, values
from polos.store.postgres import statements as sql
from polos.store.postgres.links import LateWaiters, Link
from polos.store.protocol import EVENTS_AGE_ROWS_MAX, TOPICS_MAX

_CURSOR = "SELECT cursor FROM {s}.topic WHERE name = $1"
_MOVE = "UPDATE {s}.topic SET cursor = $2 WHERE name = $1"
TREE = f"SELECT {rows.EXECUTION_COLUMNS} FROM {{s}}.execution WHERE root_id = $1 ORDER BY id"
_STANDING = (
    "SELECT id, status, started_at IS NOT NULL, generation, retry_count FROM {s}.execution "
    "WHERE root_id = $1 ORDER BY id"
)
READS_MAX = 5
"""How often a tree is read again that changes while it is read."""
_STEP = ", ".join(f"t.{name}" for name in rows.STEP_COLUMNS.split(", "))
_STEPS = (
    f"SELECT k.id, {_STEP} FROM unnest($2::text[], $3::bigint[]) k (id, seq) "
    "CROSS JOIN LATERAL (SELECT * FROM {s}.step WHERE root_id = $1 AND execution_id = k.id "
    "AND seq > k.seq ORDER BY seq) t"
)
_AFTER = (
    f"SELECT {values.EVENT_COLUMNS} FROM {{s}}.event WHERE topic = $1 AND seq > $2 "
    "ORDER BY seq LIMIT $3"
)
_FIRST_SINCE = "SELECT min(seq) FROM {s}.event WHERE topic = $1 AND at > $2"
_LASTS = "SELECT name, last FROM {s}.topic WHERE name = ANY($1::text[])"
_TOPICS = (
    "SELECT t.name, t.last, (SELECT count(*) FROM {s}.event e WHERE e.topic = t.name), "
    "(SELECT max(at) FROM {s}.event e WHERE e.topic = t.name) FROM {s}.topic t WHERE t.last > 0 "
    "ORDER BY t.name"
)
_WATCHED = (
    "SELECT topic FROM {s}.wait WHERE topic IS NOT NULL AND starts_with(topic, $1) "
    "UNION SELECT topic FROM {s}.event_trigger WHERE starts_with(topic, $1)"
)
_ANY = "SELECT EXISTS (SELECT 1 FROM {s}.topic)"
_NAMES = "SELECT name FROM {s}.topic WHERE name > $1 ORDER BY name LIMIT $2"
# Only waited for, and by nobody any more.
_FORGET = (
    "DELETE FROM {s}.topic WHERE name = $1 AND last = 0 AND cursor IS NULL "
    "AND NOT EXISTS (SELECT 1 FROM {s}.wait WHERE topic = $1)"
)
_PRUNE = (
    "DELETE FROM {s}.event WHERE topic = $1 AND seq = ANY(ARRAY(SELECT seq FROM {s}.event "
    "WHERE topic = $1 AND at < $2 AND root_id IS NULL ORDER BY at LIMIT $3)) RETURNING 1"
)


def _is_chunk(event: Event) -> bool:
    return isinstance(event, streams.StreamEvent)


def _columns(records: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*records, strict=True)]


# -- writing (inside the caller's transaction) ----------------------------------------------------


class Publishing:
    """What one transaction publishes, from the look for who waits to the last wake-up."""

    def __init__(self, link: Link, published: Published, bells: set[str]) -> None:
        self._link = link
        self._published = published
        self._bells = bells
        self._locked: set[tuple[str, str]] = set()
        self.owners: dict[str, str | None] = {}
        """The workers of the executions that are locked to be woken."""

    async def waiting(
        self, topics: Iterable[str], events: Sequence[Event] | None = None
    ) -> list[tuple[str, str]]:
        """Return who waits for topics, (root, id): to be locked before the topics are.

        With the `events`, only those that will get one.
        """
        names = sorted(set(topics))
        if not names:
            return []
        waits = [rows.wait(tuple(each)) for each in await self._link.fetch(sql.WAITERS, names)]
        # What a tree's topic lacks comes with them, and is not known yet.
        if events is not None and not any(map(rules.root_of, names)):
            waits = [each.wait for each in rules.deliveries(waits, events)]
        self._locked = {(wait.root_id, wait.execution_id) for wait in waits}
        return sorted(self._locked)

    async def lock(self, topics: Iterable[str], waited: Iterable[str], *, again: bool) -> None:
        """Lock topics, by name: behind it nobody else publishes there or begins to wait.

        Those of new events alone are locked when they are counted.
        """
        awaited = set(waited)
        names = sorted(awaited | set(topics))
        if awaited or again or any(rules.root_of(each) for each in names):
            await self._link.fetch(sql.TOPICS, names, [0] * len(names))

    async def write(self, events: Sequence[Event], *, again: bool) -> None:
        """Number and store events, and bring them to those who wait.

        `again`: they were sent before, and may be there. The caller has called `lock`.
        """
        if again:
            events = await self._without_sent(events)
        roots = {rules.root_of(event.topic) for event in events}
        for root_id in sorted(each for each in roots if each is not None):
            await self.derive(root_id)  # what happened before comes before
        by_topic: dict[str, list[Event]] = {}
        for event in events:
            by_topic.setdefault(event.topic, []).append(event)
        cursors = await self._admit(by_topic)
        await self._append([event for some in by_topic.values() for event in some])
        if cursors:
            await self._link.fetch(sql.TOPICS_MOVED, list(cursors), list(cursors.values()))

    async def _admit(self, by_topic: dict[str, list[Event]]) -> dict[str, str]:
        """Leave what is new on the topics of chunks; returns their new cursors."""
        names = [name for name, some in by_topic.items() if any(map(_is_chunk, some))]
        if not names:
            return {}
        known = dict(await self._link.fetch(sql.TOPIC_CURSORS, names))
        cursors: dict[str, str] = {}
        for name in names:
            by_topic[name], cursor = streams.admit(known.get(name), by_topic[name])
            if by_topic[name]:
                cursors[name] = cursor
        return cursors

    async def _without_sent(self, events: Sequence[Event]) -> list[Event]:
        if not events:  # those who brought them were refused
            return []
        keys = _columns([(event.topic, event.at, event.id) for event in events])
        sent = {n - 1: seq for n, seq in await self._link.fetch(sql.EVENTS_SENT, *keys)}
        for n, seq in sent.items():
            events[n].seq = seq
        # Of an execution's chunks one commit brings all that are new, and the others never.
        whole = {e.topic for n, e in enumerate(events) if n in sent and _is_chunk(e)}
        return [e for n, e in enumerate(events) if n not in sent and e.topic not in whole]

    async def _append(self, events: Sequence[Event]) -> None:
        if not events:
            return
        by_topic: dict[str, list[Event]] = {}
        for event in events:
            by_topic.setdefault(event.topic, []).append(event)
        counts = [len(some) for some in by_topic.values()]
        for topic, last in await self._link.fetch(sql.TOPICS, list(by_topic), counts):
            some = by_topic[topic]
            for seq, event in enumerate(some, last - len(some) + 1):
                event.seq = seq
        found = await self._link.fetch(sql.EVENTS, *_columns([values.event(e) for e in events]))
        self._published.events += events
        self._bells |= {rules.bell(topic) for topic in by_topic}
        if found:
            await self._deliver(
                rules.deliveries([rows.wait(tuple(each)) for each in found], events)
            )

    async def _deliver(self, deliveries: Sequence[rules.Delivery]) -> None:
        if not deliveries:
            return
        keys = {(d.wait.root_id, d.wait.execution_id) for d in deliveries}
        await self._lock_late(keys)
        items = [
            (
                each.wait.root_id,
                each.wait.execution_id,
                each.id,
                rules.item_ref(each.wait.seq),
                each.event.at,
                rules.envelope(each.event),
                each.wait.seq if each.ends else None,
            )
            for each in deliveries
        ]
        await self._link.fetch(sql.DELIVER, *_columns(items))
        for _, id_ in keys:
            self._published.woken.add(id_)
            worker_id = self.owners.get(id_)
            self._bells.add("queue" if worker_id is None else f"worker:{worker_id}")

    async def _lock_late(self, keys: set[tuple[str, str]]) -> None:
        """Lock who began to wait since the look; nobody is waited for, the order forbids it."""
        late = sorted(keys - self._locked)
        if late:
            found = await self._link.fetch(sql.LOCK_FREE, *_columns(late))
            if len(found) < len(late):
                raise LateWaiters
            self._locked |= set(late)
            self.owners |= dict(found)

    async def derive(self, root_id: str) -> None:
        """Append what is new in the journals of a tree to its topic, which is locked."""
        new = await derived(self._link, root_id)
        if new is not None:
            topic, cursor, events = new
            await self._append(events)
            await self._link.fetch(_MOVE, topic, cursor)


async def derived(link: Link, root_id: str) -> tuple[str, str, list[Event]] | None:
    """Return what the topic of a tree lacks: its name, the new cursor and the events."""
    executions = await _tree(link, root_id)
    if not executions:
        return None
    topic = rules.workflow_topic(executions[0].root_workflow_id, root_id)
    known = await link.row(_CURSOR, topic)
    cursor = lifecycle.load(None if known is None else known[0])
    journals = await _journals(link, root_id, cursor, executions)
    for _ in range(READS_MAX):
        if len(executions) == 1 and not any(map(lifecycle.has_children, journals.values())):
            break
        # What was committed in between would put a parent's rows before its child's.
        standing = [tuple(each) for each in await link.fetch(_STANDING, root_id)]
        if standing == [lifecycle.standing(each) for each in executions]:
            break
        executions = await _tree(link, root_id)
        journals = await _journals(link, root_id, cursor, executions)
    events = lifecycle.derive(cursor, executions, journals)
    return (topic, lifecycle.dump(cursor), events) if events else None


async def _tree(link: Link, root_id: str) -> list[Execution]:
    return [rows.execution(tuple(each)) for each in await link.fetch(TREE, root_id)]


async def _journals(
    link: Link, root_id: str, cursor: lifecycle.Cursor, executions: Sequence[Execution]
) -> dict[str, list[Row]]:
    wanted = lifecycle.wanted(cursor, executions)
    journals: dict[str, list[Row]] = {id_: [] for id_ in wanted}
    for record in await link.fetch(_STEPS, root_id, list(wanted), list(wanted.values())):
        journals[record[0]].append(rows.step(tuple(record)[1:]))
    return journals


async def derive(link: Link, root_id: str) -> tuple[Published, set[str]]:
    """Append what is new in the journals of a tree to its topic, in a transaction of its own.

    Returns what it published, and the bells to ring.
    """
    published = Published()
    bells: set[str] = set()
    record = await link.row(TREE, root_id)
    if record is None:
        return published, bells
    topic = rules.workflow_topic(rows.execution(tuple(record)).root_workflow_id, root_id)
    publishing = Publishing(link, published, bells)
    waiting = await publishing.waiting([topic])
    publishing.owners |= dict(await link.fetch(sql.LOCK, *_both(waiting)))
    await publishing.lock([topic], [], again=False)
    await publishing.derive(root_id)
    return published, bells


def _both(keys: Sequence[tuple[str, str]]) -> list[list[str]]:
    return [[key[0] for key in keys], [key[1] for key in keys]]


async def prune(link: Link, before: int, behind: str) -> tuple[int, str]:
    """Remove some events of ordinary topics that were published before a moment.

    It goes on behind a topic; returns how many, and the topic behind which the next part begins,
    or "" at the end.
    """
    removed, name = 0, behind
    names = await link.fetch(_NAMES, behind, TOPICS_MAX)
    for (name,) in names:
        removed += len(await link.fetch(_PRUNE, name, before, EVENTS_AGE_ROWS_MAX - removed))
        if removed >= EVENTS_AGE_ROWS_MAX:
            return removed, behind
        await link.fetch(_FORGET, name)
        behind = name
    return removed, name if len(names) == TOPICS_MAX else ""


# -- reading --------------------------------------------------------------------------------------


async def after(link: Link, topic: str, seq: int, limit: int) -> list[Event]:
    """Read the events of a topic behind one, in order."""
    return [rows.event(tuple(each)) for each in await link.fetch(_AFTER, topic, seq, limit)]


async def seq_at(link: Link, topic: str, at: int) -> int:
    """Return the number behind which a topic has all that was published after a moment."""
    first = (await link.row(_FIRST_SINCE, topic, at))[0]
    return (await last_seqs(link, [topic]))[topic] if first is None else first - 1


async def last_seqs(link: Link, topics: Sequence[str]) -> dict[str, int]:
    """Return the numbers of the latest events of topics."""
    found: dict[str, int] = dict(await link.fetch(_LASTS, list(topics)))
    return {topic: found.get(topic, 0) for topic in topics}


async def has_topics(link: Link) -> bool:
    """Say whether there is any topic."""
    return bool((await link.row(_ANY))[0])


async def topics(link: Link) -> list[Topic]:
    """Read all topics that have, or had, events."""
    return [Topic(*each) for each in await link.fetch(_TOPICS)]


async def watched(link: Link) -> list[str]:
    """Return the topics of workflows that somebody waits for or is triggered by."""
    return [topic for (topic,) in await link.fetch(_WATCHED, rules.WORKFLOW)]
