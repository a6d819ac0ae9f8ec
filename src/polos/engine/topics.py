"""Verbs on topics: publish, read, and keep the followed topics of workflows current."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Protocol

from polos.core import events as rules
from polos.core.clock import Clock
from polos.core.model import Event, Publish, Published, Topic
from polos.engine.interest import Interest
from polos.errors import StoreError
from polos.store.protocol import Store

LOOK_UP_SECONDS = 10.0
"""Between two looks for topics of trees that nobody in this process is known to wait for, unless a
worker went meanwhile."""

log = logging.getLogger("polos.engine")


class Audience(Protocol):
    """The readers of this process."""

    def on_events(self, events: Sequence[Event]) -> None:
        """These events are durable."""
        ...

    def on_bells(self, bells: set[str]) -> None:
        """Another process published on topics with these bells; `all`: on any."""
        ...


class Topics:
    """What may be done with topics; `store.on_published` comes here."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        on_woken: Callable[[Iterable[str]], None],
        on_topics: Callable[[Callable[[str], bool]], None],
    ) -> None:
        self.audience: Audience | None = None
        self.clock = clock
        self.poll_seconds = store.poll_seconds
        self.sees_others = store.sees_others
        """Whether `foreign_count` tells of every commit of another process."""
        self.watched: Counter[str] = Counter()
        """Roots whose topic somebody reads or waits for: their journals are followed."""
        self._store = store
        self._on_woken = on_woken
        self._on_topics = on_topics
        self._interest = Interest(store.ring, clock.monotonic)
        self._waited: set[str] = set()
        self._look_up_at = 0.0
        self._pruned_behind = ""
        self._behind: set[str] = set()
        self._deriving: asyncio.Task[None] | None = None
        self._closed = False

    # -- publishing ---------------------------------------------------------------------------

    def publish(self, events: Sequence[Event]) -> asyncio.Future[list[int]]:
        """Publish events; the future holds their numbers in their topics, once they are durable."""
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result([event.seq for event in events])
            else:
                future.set_exception(error)

        command = Publish(events, done)
        if not self._store.commit_now(command):
            self._store.submit(command)
        return future

    def published(self, published: Published) -> None:
        """A commit of this process is durable: tell those who read, wake those who wait."""
        if published.events:
            if self.audience is not None:
                self.audience.on_events(published.events)
            names = {event.topic for event in published.events}
            self._on_topics(names.__contains__)
        if published.woken:
            self._on_woken(published.woken)

    def heard(self, bells: set[str], *, works: bool) -> None:
        """Other processes rang; whether this one `works`, and may run what they follow."""
        if self._closed:
            return
        for root_id in self._interest.hear(bells) if works else ():
            self.watched[root_id] += 1
            self.derive_soon(root_id)
        if not any(each.startswith(("topic:", "all")) for each in bells):
            return
        if self.audience is not None:
            self.audience.on_bells(bells)
        self._on_topics(lambda topic: "all" in bells or rules.bell(topic) in bells)

    # -- reading ------------------------------------------------------------------------------

    async def after(self, topic: str, seq: int, limit: int) -> list[Event]:
        """Read the events of a topic behind one, in order."""
        return await self._store.events(topic, seq, limit)

    async def seq_at(self, topic: str, at: int) -> int:
        """Return the number behind which a topic has all that was published after a moment."""
        return await self._store.seq_at(topic, at)

    async def last_seqs(self, topics: Sequence[str]) -> dict[str, int]:
        """Return the numbers of the latest events of topics."""
        return await self._store.last_seqs(topics)

    async def topics(self) -> list[Topic]:
        """Read all topics that have, or had, events."""
        return await self._store.topics()

    def foreign_count(self) -> int:
        """Count how often another process was seen to have committed, where that is seen."""
        return self._store.foreign_count()

    # -- the topics of workflows --------------------------------------------------------------

    def watch(self, topic: str) -> None:
        """Somebody reads a topic: if it is a tree's, its journals are followed from now on."""
        root_id = rules.root_of(topic)
        if root_id is not None:
            self.watched[root_id] += 1

    def unwatch(self, topic: str) -> None:
        """Somebody reads a topic no longer."""
        root_id = rules.root_of(topic)
        if root_id is not None and root_id in self.watched:
            self._release(root_id)

    def look_up_soon(self) -> None:
        """A worker is gone: somebody has to follow the topics that its executions wait for."""
        self._look_up_at = 0.0

    async def survey(self) -> None:
        """Bring the topics of trees up to date that are waited for, or trigger something.

        Those of this process are known; what others left behind is looked up now and then.
        """
        for root_id in self._interest.expire():
            self._release(root_id)
        moment = self.clock.monotonic()
        if moment >= self._look_up_at:
            self._look_up_at = moment + LOOK_UP_SECONDS
            found = {rules.root_of(topic) for topic in await self._store.watched()}
            self._await({root for root in found if root is not None})
        for root_id in self._waited:
            self._interest.tell(root_id)
            self.derive_soon(root_id)

    def _await(self, roots: set[str]) -> None:
        for root_id in roots - self._waited:
            self.watched[root_id] += 1
        for root_id in self._waited - roots:
            self._release(root_id)
        self._waited = roots

    def _release(self, root_id: str) -> None:
        self.watched[root_id] -= 1
        if self.watched[root_id] <= 0:
            del self.watched[root_id]

    def await_topic(self, topic: str) -> None:
        """An execution of this process begins to wait for a topic."""
        root_id = rules.root_of(topic)
        if root_id is not None and root_id not in self._waited:
            self._await({*self._waited, root_id})
            self._interest.tell(root_id)
            self.derive_soon(root_id)

    async def derive(self, topic: str) -> None:
        """Bring a topic up to date, if it is a tree's."""
        root_id = rules.root_of(topic)
        if root_id is not None:
            if root_id in self.watched:
                self._interest.tell(root_id)
            await self._store.derive(root_id)

    def derive_soon(self, root_id: str) -> None:
        """Something was committed in a tree that is watched: bring its topic up to date."""
        if self._closed:
            return
        self._behind.add(root_id)
        if self._deriving is None:
            # In a context of its own: a task of the code that commits here would count as its.
            loop = asyncio.get_running_loop()
            self._deriving = asyncio.Task(self._derive(), loop=loop, context=Context())

    async def _derive(self) -> None:
        try:
            while self._behind and not self._closed:
                behind, self._behind = self._behind, set()
                for root_id in behind:
                    await self._store.derive(root_id)
        except StoreError as error:  # whoever reads or waits asks for it again
            log.warning("the topic of a workflow is late: %s", error)
        finally:
            self._deriving = None

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed = True
        if self._deriving is not None:
            self._deriving.cancel()

    async def prune(self, seconds: float) -> bool:
        """Remove some events of ordinary topics that are older; True: there is more to look at."""
        before = self.clock.now() - round(seconds * 1e6)
        _, self._pruned_behind = await self._store.prune_events(before, self._pruned_behind)
        return bool(self._pruned_behind)
