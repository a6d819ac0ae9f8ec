"""Readers of topics: one place in a process where the events of its commits reach all of them.

A reader takes what commits of this process bring as it comes, while that is contiguous and its
buffer has room; otherwise it reads the table. Rings only save time.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Self

from polos.core import events as rules
from polos.core.model import Event
from polos.errors import StoreClosedError, UsageError

BUFFER_MAX = 1000
"""Events that a reader keeps in memory ahead of its code."""
READ_MAX = 500
PLACES_MAX = 10_000
"""Topics for which it is remembered where their last reader stopped."""
NOW = "now"
BEGINNING = "beginning"
Cursor = int | str


class Audience:
    """The readers of one client; the engine tells it what was published."""

    def __init__(self) -> None:
        self._readers: dict[str, weakref.WeakSet[TopicReader]] = {}
        self._places: OrderedDict[str, int] = OrderedDict()
        self._topics: Any = None
        self._poller: asyncio.Task[None] | None = None
        self._foreign = 0
        self.closed = False

    def attach(self, topics: Any) -> None:
        """The store is open: `polos.engine.topics.Topics`."""
        self._topics, self.closed = topics, False
        topics.audience = self
        self._foreign = topics.foreign_count()
        for topic, readers in self._readers.items():
            for _ in readers:
                topics.watch(topic)

    def detach(self) -> None:
        """The store is closed: whoever reads is told."""
        self.closed = True
        if self._poller is not None:
            self._poller.cancel()
        for reader in self._all():
            reader.ring()

    def enter(self, reader: TopicReader) -> None:
        """Let a reader have what is published from now on."""
        readers = self._readers.get(reader.topic)
        if readers is None:
            readers = self._readers[reader.topic] = weakref.WeakSet()
        readers.add(reader)
        if self._topics is not None:
            self._topics.watch(reader.topic)

    def leave(self, reader: TopicReader) -> None:
        """A reader has stopped."""
        readers = self._readers.get(reader.topic)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._readers[reader.topic]
        if self._topics is not None:
            self._topics.unwatch(reader.topic)

    # -- where the last reader stopped --------------------------------------------------------

    def note_place(self, topic: str, seq: int) -> None:
        """A reader without a cursor of its own stopped behind an event."""
        self._places[topic] = max(seq, self._places.get(topic, 0))
        self._places.move_to_end(topic)
        if len(self._places) > PLACES_MAX:
            self._places.popitem(last=False)

    def take_place(self, topic: str) -> int | None:
        """Return where the last reader of a topic stopped, for the one that goes on there."""
        for reader in list(self._readers.get(topic, ())):
            if reader.has_stopped():
                reader.stop()
        return self._places.pop(topic, None)

    # -- news ---------------------------------------------------------------------------------

    def on_events(self, events: Sequence[Event]) -> None:
        """These events are durable."""
        if not self._readers:
            return
        by_topic: dict[str, list[Event]] = {}
        for event in events:
            if event.topic in self._readers:
                by_topic.setdefault(event.topic, []).append(event)
        for topic, some in by_topic.items():
            for reader in list(self._readers[topic]):
                reader.offer(some)

    def on_bells(self, bells: set[str]) -> None:
        """Another process published."""
        for topic in list(self._readers):
            if "all" in bells or rules.bell(topic) in bells:
                self._ring(topic)

    def _ring(self, topic: str) -> None:
        for reader in list(self._readers.get(topic, ())):
            reader.ring()

    def _all(self) -> list[TopicReader]:
        return [reader for readers in list(self._readers.values()) for reader in readers]

    def poll(self) -> None:
        """A reader waits: look now and then whether other processes published."""
        if self._poller is None and self._topics is not None and not self.closed:
            self._poller = asyncio.Task(
                self._poll(), loop=asyncio.get_running_loop(), context=Context()
            )

    async def _poll(self) -> None:
        topics = self._topics
        try:
            while not self.closed:
                await _pause(topics.clock, topics.poll_seconds)
                waiting = [reader.topic for reader in self._all() if reader.waits]
                if not waiting:
                    return
                await self._look(sorted(set(waiting)))
        except StoreClosedError:
            return
        finally:
            self._poller = None

    async def _look(self, names: Sequence[str]) -> None:
        topics = self._topics
        count = topics.foreign_count()
        if topics.sees_others and count == self._foreign:
            return
        self._foreign = count
        for name in names:
            await topics.derive(name)
        last = await topics.last_seqs(names)
        for reader in self._all():
            if reader.tail < last.get(reader.topic, 0):
                reader.ring()


class TopicReader:
    """The events of one topic, in order, as an async iterator that never ends by itself.

    `cursor` is the number of the event behind which it begins, or a moment (`since`, microseconds);
    or NOW or BEGINNING, unless an earlier reader of the same client stopped at some event: then it
    goes on there.
    """

    buffer_max = BUFFER_MAX
    read_max = READ_MAX

    def __init__(
        self, client: Any, topic: str, cursor: Cursor | None = None, since: int | None = None
    ) -> None:
        self.topic = topic
        self.position = 0
        """The number of the last event that was handed out."""
        self.tail = -1
        """The number of the last event in the buffer, or handed out; -1: where to begin is not
        known yet."""
        self._client = client
        self._audience: Audience = client.audience
        self._cursor = cursor
        self._since = since
        self._own = isinstance(cursor, int) or since is not None
        self._early: int | None = None
        self._buffer: deque[Event] = deque()
        self._behind = True
        self._future: asyncio.Future[None] | None = None
        self._began = False
        self._stopped = False
        self._task: asyncio.Task[Any] | None = None
        self._start: asyncio.Task[None] | None = None
        self._enter()

    def _enter(self) -> None:
        if not self._own:
            place = self._audience.take_place(self.topic)
            if place is not None:
                self._cursor = self.position = place
                self._began = True
        self._audience.enter(self)
        if self._cursor == NOW:
            with contextlib.suppress(RuntimeError):
                # From the call on, not from the first look: the question is on its way at once.
                loop = asyncio.get_running_loop()
                self._start = asyncio.Task(self._find_start(), loop=loop, context=Context())
                self._start.add_done_callback(_read)

    # -- the life of a reader -----------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Say whether its code waits for an event."""
        return self._future is not None

    @property
    def held(self) -> int:
        """How many events it keeps in memory."""
        return len(self._buffer)

    def has_stopped(self) -> bool:
        """Say whether nobody will ask this reader again, as far as can be told.

        Whoever left its loop without closing it has ended, or opens the next reader right now.
        """
        if self._own or not self._began or self._task is None:
            return False
        return self._task.done() or self._task is asyncio.current_task()

    def stop(self, *, forget: bool = False) -> None:
        """Stop; the next reader without a cursor goes on here, unless `forget`."""
        if self._stopped:
            return
        self._stopped = True
        self._audience.leave(self)
        knows = self.tail >= 0 or isinstance(self._cursor, int)
        if not (self._own or forget) and self._began and knows:
            self._audience.note_place(self.topic, self.position)
        if self._start is not None:
            self._start.cancel()
        self.ring()

    def __del__(self) -> None:
        if not getattr(self, "_stopped", True):
            self._start = None
            self.stop()

    # -- news ---------------------------------------------------------------------------------

    def offer(self, events: Sequence[Event]) -> None:
        """A commit of this process published these on the topic."""
        if self.tail < 0:
            if self._early is None:
                self._early = events[0].seq - 1
        elif (
            not self._behind
            and events[0].seq == self.tail + 1
            and len(self._buffer) + len(events) <= self.buffer_max
        ):
            self._buffer.extend(events)
            self.tail = events[-1].seq
        else:
            self._behind = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def ring(self) -> None:
        """There may be news in the table."""
        self._behind = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    # -- reading ------------------------------------------------------------------------------

    @property
    def run_blocking(self) -> Any:
        """See `PolosClient.run_blocking`."""
        return self._client.run_blocking

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        event = await self.next()
        assert event is not None
        return event

    async def next(self, *, wait: bool = True) -> Event | None:
        """Return the next event; None if there is none and nobody should `wait` for it."""
        self._began, self._task = True, asyncio.current_task()
        while True:
            if self._buffer:
                event = self._buffer.popleft()
                self.position = event.seq
                return event
            if self._stopped:
                raise StopAsyncIteration
            await self._fill()
            if self._buffer:
                continue
            if not wait:
                return None
            if not self._behind:
                await self._wait()

    async def _fill(self) -> None:
        """Read what the table has, if it may have more than the buffer had."""
        node = await self._client.node()
        if self.tail < 0:
            await (self._start or self._find_start())
        if not self._behind:
            return
        self._behind = False
        found = await node.engine.topics.after(self.topic, self.tail, self.read_max)
        if len(found) >= self.read_max:
            self._behind = True
        for event in found:
            if event.seq > self.tail:
                self._buffer.append(event)
                self.tail = event.seq

    async def _find_start(self) -> None:
        node = await self._client.node()
        topics = node.engine.topics
        await topics.derive(self.topic)
        if self._since is not None:
            tail = await topics.seq_at(self.topic, self._since)
        elif self._cursor == NOW:
            tail = (await topics.last_seqs([self.topic]))[self.topic]
            if self._early is not None:  # published after the call, and before the answer
                tail = min(tail, self._early)
        else:
            tail = self._cursor if isinstance(self._cursor, int) else 0
        self.tail = self.position = tail

    async def _wait(self) -> None:
        self._future = asyncio.get_running_loop().create_future()
        self._audience.poll()
        try:
            await self._future
        finally:
            self._future = None
        if self._audience.closed:
            raise StoreClosedError(
                "the client was closed while a topic was read; open a new one and go on from the "
                f"last sequence_id ({self.position})"
            )

    async def aclose(self) -> None:
        """Stop reading."""
        self.stop()


def check_cursor(name: str, value: Any) -> int | None:
    """Return the number of an event, or None; UsageError for anything else."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        what = "offset of a chunk" if name == "offset" else "sequence_id of an event"
        raise UsageError(f"{name}={value!r}: expected the {what}, 0 or more")
    return value


def _read(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever reads gets it; nobody may


async def _pause(clock: Any, seconds: float) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    handle = clock.call_periodically(seconds, lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        handle.cancel()
