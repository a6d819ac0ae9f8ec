"""Events: publish on topics and read them, from outside of workflows. `from polos import events`.

A topic is any name. Its events are numbered 1, 2, … in the order of their commits, without gaps;
a reader begins behind a number or a moment, and sees each event once it is durable. Inside a
workflow use `ctx.step.publish_event` and `ctx.step.wait_for_event`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, cast

from pydantic import BaseModel, Field, ValidationError

from polos.client import blocking
from polos.client.topics import BEGINNING, NOW, TopicReader, check_cursor
from polos.core import events as rules
from polos.core import ids
from polos.core.content import Dumped
from polos.core.lifecycle import TERMINAL_TYPES
from polos.core.model import TERMINAL, Event
from polos.errors import UsageError
from polos.workflow.event import BatchEventPayload, EventItem, EventPayload, dump_data

if TYPE_CHECKING:
    from polos.client.client import Client

__all__ = [
    "BatchEventPayload",
    "EventData",
    "EventItem",
    "EventPayload",
    "EventStream",
    "StreamEvent",
    "batch_publish",
    "list_topics",
    "publish",
    "read",
    "stream_topic",
    "stream_workflow",
    "subscribe",
]


class EventData(BaseModel):
    """What is published: data, and a type of your choice."""

    event_type: str | None = None
    data: dict[str, Any]


class StreamEvent(BaseModel):
    """An event as readers get it; `created_at` is ISO 8601, `sequence_id` the cursor behind it."""

    id: str
    sequence_id: int
    topic: str
    event_type: str | None = None
    data: Any = Field(default_factory=dict)
    created_at: str | None = None


# -- publishing -----------------------------------------------------------------------------------


async def publish(
    client: Client,
    topic: str,
    event_data: EventData | Mapping[str, Any],
    execution_id: str | None = None,
    root_execution_id: str | None = None,
) -> int:
    """Publish an event; returns its number in the topic once it is durable.

    `event_data` is an `EventData`, or a dict with its fields. `execution_id` says on whose behalf;
    `root_execution_id` is accepted for the reference's sake. Executions that wait for the topic are
    woken and workflows that it triggers started. Raises `UsageError` (`EncodeError` for data that
    are no JSON) before anything is stored.
    """
    numbers = await batch_publish(client, topic, [event_data], execution_id, root_execution_id)
    return numbers[0]


async def batch_publish(
    client: Client,
    topic: str,
    events: Sequence[EventData | Mapping[str, Any]],
    execution_id: str | None = None,
    root_execution_id: str | None = None,
) -> list[int]:
    """Publish several events of one topic in one commit; returns their numbers, in order."""
    rules.check_topic(topic)
    for name, given in (("execution_id", execution_id), ("root_execution_id", root_execution_id)):
        if given is not None and not (isinstance(cast("Any", given), str) and given):
            raise UsageError(f"{name}={given!r}: expected the id of an execution, or None")
    if isinstance(cast("Any", events), str | Mapping | EventData):
        raise UsageError("events: expected a list of EventData")
    checked = [_checked(each, n) for n, each in enumerate(events)]
    if not checked:
        return []
    node = await client.node()
    if not node.read_only:
        await node.runner.ensure()  # a workflow that is new here may be waiting for the topic
    now = node.engine.clock.now()
    made = [
        Event(topic, ids.new_id(now + n), type_, data.text, now, 0, None, execution_id)
        for n, (type_, data) in enumerate(checked)
    ]
    contents = [content for _, data in checked for content in data.contents]
    await node.engine.keep_blobs(contents, all=True)
    # What is on its way is not taken back: whoever stops waiting may find it published.
    return await asyncio.shield(node.engine.topics.publish(made))


def _checked(given: Any, number: int) -> tuple[str | None, Dumped]:
    what = f"event {number}"
    if isinstance(given, Mapping):
        try:
            given = EventData.model_validate(dict(cast("Mapping[str, Any]", given)))
        except ValidationError as error:
            raise UsageError(
                f"{what}: expected EventData(event_type=..., data={{...}}) or a dict with these "
                f"fields: {error}"
            ) from error
    if not isinstance(given, EventData):
        raise UsageError(f"{what}: expected an EventData or a dict, not {type(given).__name__}")
    return rules.check_type(given.event_type), dump_data(given.data, f"data of {what}")


# -- reading --------------------------------------------------------------------------------------


class EventStream:
    """An async iterator of `StreamEvent`; leave its loop when you have enough.

    In code without an event loop a plain `for` reads it, and blocks; "from now on" is from its
    first turn on.
    Hold `sequence_id` of the last event to go on behind it, also in another process.
    """

    def __init__(self, reader: TopicReader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[StreamEvent]:
        return blocking.iterate(self._reader.run_blocking, lambda: self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        event = await self._reader.next()
        assert event is not None
        return _shown(event)

    async def aclose(self) -> None:
        """Stop reading."""
        self._reader.stop()


class _WorkflowStream(EventStream):
    """Ends behind the event that tells how its execution ended."""

    def __init__(self, client: Client, workflow_id: str, execution_id: str, *cursor: Any) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._execution_id = execution_id
        self._known = False
        self._ended = False
        super().__init__(
            TopicReader(client, rules.workflow_topic(workflow_id, execution_id), *cursor)
        )

    async def __anext__(self) -> StreamEvent:
        if self._ended:
            raise StopAsyncIteration
        if not self._known:
            await self._check()
        event = await self._reader.next(wait=False)
        if event is None:
            if await self._is_over():
                event = await self._reader.next(wait=False)
                if event is None:
                    return self._end()
            else:
                event = await self._reader.next()
        assert event is not None
        shown = _shown(event)
        if event.type in TERMINAL_TYPES and self._is_own(shown.data):
            self._ended = True
            self._reader.stop(forget=True)
        return shown

    async def _check(self) -> None:
        # A topic that nobody will ever publish on would be waited for without end.
        node = await self._client.node()
        record = await node.engine.require(self._execution_id)
        if record.root_id != record.id or record.root_workflow_id != self._workflow_id:
            raise UsageError(
                f"no topic is of workflow {self._workflow_id!r} and execution {record.id!r}: what "
                f"it tells is read with the ids of its root, {record.root_workflow_id!r} and "
                f"{record.root_id!r}"
            )
        self._known = True

    def _end(self) -> StreamEvent:
        self._ended = True
        self._reader.stop(forget=True)
        raise StopAsyncIteration

    def _is_own(self, data: Any) -> bool:
        meta = cast("dict[str, Any]", data).get("_metadata") if isinstance(data, dict) else None
        if not isinstance(meta, dict):
            return False
        return cast("dict[str, Any]", meta).get("execution_id") == self._execution_id

    async def _is_over(self) -> bool:
        node = await self._client.node()
        record = await node.engine.require(self._execution_id)
        if record.status not in TERMINAL:
            return False
        await node.engine.topics.derive(self._reader.topic)
        self._reader.ring()
        return True


def stream_topic(
    client: Client,
    topic: str | None = None,
    last_sequence_id: int | None = None,
    last_timestamp: datetime | None = None,
) -> EventStream:
    """Read a topic: behind an event, from a moment on, or what is published from this call on.

    With neither, a reader goes on where the last one of this client and topic stopped, so that
    readers one after the other neither miss nor repeat an event. It never ends by itself. The data
    of the events are plain. `topic=None` (all topics) is refused: there is no order over topics.
    """
    if topic is None:
        raise UsageError(
            "stream_topic needs a topic: events are ordered within one; read several side by side"
        )
    rules.check_topic(topic)
    return EventStream(TopicReader(client, topic, *_cursor(last_sequence_id, last_timestamp, NOW)))


def subscribe(client: Client, topic: str, *, after: int | datetime | None = None) -> EventStream:
    """Read a topic behind an event (its number) or a moment; see `stream_topic`.

    `after=0` reads from the beginning, as far as events are kept.
    """
    if isinstance(after, datetime):
        return stream_topic(client, topic, None, after)
    check_cursor("after", after)
    return stream_topic(client, topic, after)


def stream_workflow(
    client: Client,
    workflow_id: str,
    workflow_run_id: str,
    last_sequence_id: int | None = None,
    last_timestamp: datetime | None = None,
) -> EventStream:
    """Read what an execution and its children tell, up to the event that says how it ended.

    `workflow_id` and `workflow_run_id` are those of the root. Without a cursor it begins with the
    start of the execution, or where the last reader of this client stopped. It ends behind
    `workflow_finish`, `workflow_failed` or `workflow_cancelled` of that execution. Raises
    `ExecutionNotFoundError` at first use if there is no such execution, and `UsageError` if it is
    of another workflow or is not the root.
    """
    for name, given in (("workflow_id", workflow_id), ("workflow_run_id", workflow_run_id)):
        if not isinstance(cast("Any", given), str) or not given:
            raise UsageError(f"{name}={given!r}: expected a non-empty string")
    rules.check_topic(rules.workflow_topic(workflow_id, workflow_run_id))
    cursor = _cursor(last_sequence_id, last_timestamp, BEGINNING)
    return _WorkflowStream(client, workflow_id, workflow_run_id, *cursor)


async def read(
    client: Client, topic: str, after: int | datetime = 0, limit: int = 100
) -> list[StreamEvent]:
    """Return at most `limit` events of a topic that are there, behind a number or a moment."""
    rules.check_topic(topic)
    if not isinstance(cast("Any", limit), int) or limit < 1:
        raise UsageError(f"limit={limit!r}: expected an int of 1 or more")
    since = rules.microseconds(after) if isinstance(after, datetime) else None
    cursor = None if isinstance(after, datetime) else check_cursor("after", after)
    reader = TopicReader(client, topic, cursor, since)
    found: list[StreamEvent] = []
    try:
        while len(found) < limit:
            event = await reader.next(wait=False)
            if event is None:
                break
            found.append(_shown(event))
    finally:
        reader.stop()
    return found


async def list_topics(client: Client) -> list[dict[str, Any]]:
    """List the topics that have, or had, events, by name.

    Each is a dict of `topic`, `last_sequence_id`, `events` (how many are kept) and `last_event_at`.
    """
    node = await client.node()
    return [
        {
            "topic": each.name,
            "last_sequence_id": each.last,
            "events": each.events,
            "last_event_at": None if each.at is None else rules.moment(each.at).isoformat(),
        }
        for each in await node.engine.topics.topics()
    ]


def _cursor(number: Any, moment: Any, otherwise: str) -> tuple[int | str | None, int | None]:
    if number is not None:
        return check_cursor("last_sequence_id", number), None
    if moment is None:
        return otherwise, None
    if not isinstance(moment, datetime):
        raise UsageError(f"last_timestamp={moment!r}: expected a datetime, or None")
    return None, rules.microseconds(moment)


def _shown(event: Event) -> StreamEvent:
    return StreamEvent.model_validate_json(rules.envelope(event))
