"""Who watches recorded states in this process, and what makes them look.

Commits of this process ring at once; those of others are looked for as long as somebody waits.
A ring says only that there may be news: whoever hears it reads the store.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextvars import Context
from types import CoroutineType
from typing import Any, ParamSpec, Protocol, TypeVar

from polos.core.clock import Clock
from polos.core.model import Change
from polos.core.watching import IDLE_SHARE, POLL_SECONDS, Head
from polos.errors import StoreError
from polos.store.protocol import Store

log = logging.getLogger("polos.engine")
P = ParamSpec("P")
T = TypeVar("T")


class Watcher(Protocol):
    """Whoever watches; `ring` is called on the loop."""

    @property
    def waits(self) -> bool:
        """Say whether its code waits for a change."""
        ...

    def ring(self) -> None:
        """There may be news."""
        ...


class OneWatcher(Watcher, Protocol):
    """Watches one execution."""

    execution_id: str
    position: int
    """The last version that it has read; -1: none."""


class ManyWatcher(Watcher, Protocol):
    """Watches the executions that fit."""

    def came(self, execution_ids: Collection[str]) -> None:
        """There is news of these."""
        ...

    def poll(self, moment: float, *, changed: bool) -> None:
        """Look if it is time for it; `changed`: another process may have committed."""
        ...


class Watching:
    """The watchers of one process."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.active = False
        """Whether anybody watches; commits need not tell otherwise."""
        self.closed = False
        self.clock = clock
        self._store = store
        self._ones: dict[str, weakref.WeakSet[OneWatcher]] = {}
        self._many: weakref.WeakSet[ManyWatcher] = weakref.WeakSet()
        self._poller: asyncio.Task[None] | None = None
        self._mark: str | None = None

    # -- who watches --------------------------------------------------------------------------

    def enter(self, watcher: OneWatcher) -> None:
        """Ring a watcher of one execution from now on."""
        self._ones.setdefault(watcher.execution_id, weakref.WeakSet()).add(watcher)
        self.active = True

    def leave(self, watcher: OneWatcher) -> None:
        """Ring it no longer."""
        watchers = self._ones.get(watcher.execution_id)
        if watchers is not None:
            watchers.discard(watcher)
            if not watchers:
                del self._ones[watcher.execution_id]
        self.active = bool(self._ones or self._many)

    def enter_many(self, watcher: ManyWatcher) -> None:
        """Ring a watcher of many executions from now on."""
        self._many.add(watcher)
        self.active = True

    def leave_many(self, watcher: ManyWatcher) -> None:
        """Ring it no longer."""
        self._many.discard(watcher)
        self.active = bool(self._ones or self._many)

    # -- news of this process -----------------------------------------------------------------

    def committed(self, change: Change) -> None:
        """A change of an execution is durable."""
        told = [start.id for start in change.starts]
        if change.states or change.ending is not None:
            told.append(change.execution_id)
        if told:
            self.came(told)

    def came(self, execution_ids: Collection[str]) -> None:
        """These executions began, ended, or have another state."""
        for each in execution_ids:
            for watcher in list(self._ones.get(each, ())):
                watcher.ring()
        for watcher in list(self._many):
            watcher.came(execution_ids)

    def ring(self) -> None:
        """Something rare was done: let everybody look."""
        for watcher in self._all():
            watcher.ring()

    def after(
        self, verb: Callable[P, Coroutine[Any, Any, T]]
    ) -> Callable[P, CoroutineType[Any, Any, T]]:
        """Return a verb that lets everybody look when it is done."""

        async def rung(*args: P.args, **kwargs: P.kwargs) -> T:
            done = await verb(*args, **kwargs)
            self.ring()
            return done

        return rung

    def _all(self) -> list[Watcher]:
        ones: Iterable[Watcher] = (each for some in list(self._ones.values()) for each in some)
        return [*ones, *self._many]

    def close(self) -> None:
        """The store is closed: whoever waits is told."""
        self.closed = True
        if self._poller is not None:
            self._poller.cancel()
        self.ring()

    # -- news of other processes --------------------------------------------------------------

    def poll(self) -> None:
        """A watcher waits: look now and then whether other processes committed."""
        if self._poller is None and not self.closed:
            self._poller = asyncio.Task(
                self._poll(), loop=asyncio.get_running_loop(), context=Context()
            )

    async def _poll(self) -> None:
        pause = POLL_SECONDS
        try:
            while not self.closed:
                await _pause(self.clock, pause)
                if not any(each.waits for each in self._all()):
                    return
                begun = self.clock.monotonic()
                await self._look(begun)
                pause = max(POLL_SECONDS, IDLE_SHARE * (self.clock.monotonic() - begun))
        except StoreError as error:
            log.info("watchers look for themselves: %s", error)
            self._mark = None
        finally:
            self._poller = None
            if self._mark is None:
                self.ring()

    async def _look(self, moment: float) -> None:
        mark = await self._store.watermark()
        changed = mark != self._mark
        self._mark = mark
        for watcher in list(self._many):
            watcher.poll(moment, changed=changed)
        if not changed:
            return
        waiting: list[str] = []
        for each, some in list(self._ones.items()):
            for watcher in list(some):
                if not watcher.waits:
                    watcher.ring()  # what it reads now may be older than the mark
            if any(watcher.waits for watcher in some):
                waiting.append(each)
        if not waiting:
            return
        heads = {head.id: head for head in await self._store.heads(waiting)}
        for each in waiting:
            for watcher in list(self._ones.get(each, ())):
                if _is_news(heads.get(each), watcher.position):
                    watcher.ring()

    # -- reading ------------------------------------------------------------------------------

    async def heads(self, ids: Collection[str]) -> list[Head]:
        """Read where the recorded states of executions stand."""
        return await self._store.heads(list(ids)) if ids else []

    async def current(self, workflow_id: str | None, first_id: str) -> list[Head]:
        """Read where those stand that have not ended, and those from an id on."""
        return await self._store.current_heads(workflow_id, first_id)


def _is_news(head: Head | None, position: int) -> bool:
    return head is None or head.ended or head.version > position


async def _pause(clock: Clock, seconds: float) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def over() -> None:
        if not future.done():
            future.set_result(None)

    handle: Any = clock.call_periodically(seconds, over)
    try:
        await future
    finally:
        handle.cancel()
