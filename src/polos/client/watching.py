"""Watching the state of one execution: the state as it is, then every recorded change."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Self

from polos.client.past import count, fields_of, masked, shown
from polos.core import history, paths
from polos.core.history import Moment, Reel
from polos.core.model import TERMINAL, Execution, Status
from polos.errors import StoreClosedError, UsageError

WINDOW = 128
"""Entries that are read ahead of the code, at most."""


class Bell:
    """What the code of a watcher waits for."""

    def __init__(self) -> None:
        self.rung = False
        self._future: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        """Say whether somebody waits."""
        return self._future is not None

    def ring(self) -> None:
        """Let who waits go on."""
        self.rung = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, watching: Any) -> None:
        """Return once it was rung; StoreClosedError if the client is closed."""
        if not self.rung and not watching.closed:
            self._future = asyncio.get_running_loop().create_future()
            watching.poll()
            try:
                await self._future
            finally:
                self._future = None
        if watching.closed:
            raise StoreClosedError(
                "the client was closed while a state was watched; open a new one and go on behind "
                "what was seen last"
            )


class StateWatch:
    """An async iterator over the recorded states of an execution; it ends when that has ended.

    `version` is the `seq` of the last item that it gave, and None before: `watch_state(id,
    after_version=…)` goes on behind it, also in another process.
    """

    def __init__(
        self, client: Any, execution_id: str, path: str | None, after_version: int | None
    ) -> None:
        self.execution_id = execution_id
        self.position = -1
        """The last version that was read."""
        self.version: int | None = None
        self._after = count("after_version", after_version, -1)
        self._path = None if path is None else paths.parse(path)
        self._client = client
        self._watching: Any = None
        self._bell = Bell()
        self._record: Execution | None = None
        self._reel: Reel | None = None
        self._ready: deque[dict[str, Any]] = deque()
        self._done = False

    # -- called by the engine -----------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Say whether its code waits for a change."""
        return self._bell.waits

    def ring(self) -> None:
        """There may be news."""
        self._bell.ring()

    # -- the life of a watcher ----------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while True:
            if self._ready:
                item = self._ready.popleft()
                self.version = item["seq"]
                return item
            if self._done:
                raise StopAsyncIteration
            await self._fill()

    async def aclose(self) -> None:
        """Stop watching."""
        self._ready.clear()
        self._stop()

    def _stop(self) -> None:
        self._done = True
        if self._watching is not None:
            self._watching.leave(self)
        self._bell.ring()

    def __del__(self) -> None:
        watching = getattr(self, "_watching", None)
        if watching is not None and not self._done:
            watching.leave(self)

    # -- reading ------------------------------------------------------------------------------

    async def _fill(self) -> None:
        engine = (await self._client.node()).engine
        if self._watching is not engine.watching:
            self._watching = engine.watching
            self._watching.enter(self)
        self._bell.rung = False
        reel = self._reel
        if reel is None:
            record: Execution = await engine.require(self.execution_id)
            if _is_behind(record):
                await self._bell.wait(engine.watching)
                return
            self._reel = await self._begin(engine, record)
            return
        if await self._read(engine, reel):
            return
        record = await engine.require(self.execution_id)
        if record.status in TERMINAL:
            if not await self._read(engine, reel):
                self._stop()
            return
        await self._bell.wait(engine.watching)

    async def _begin(self, engine: Any, record: Execution) -> Reel:
        last = await engine.states.last_version(record)
        if self._after is not None and self._after > last:
            raise UsageError(
                f"after_version={self._after}: execution {record.id!r} has states up to {last}; "
                "give the seq of one that was recorded"
            )
        self._record = record
        self.position = last if self._after is None else self._after
        if self.position < 0:
            return Reel({})
        entries = await engine.states.up_to(record, self.position)
        reel = Reel(fields_of(entries))
        if self._after is None:
            self._put(Moment(entries[-1], reel.fields, reel.state, []))
        return reel

    async def _read(self, engine: Any, reel: Reel) -> bool:
        """Read the next entries; False if there are none."""
        found = await engine.states.between(self._record, self.position, self.position + WINDOW)
        for entry in found:
            before = reel.state
            moment = reel.advance(entry)
            self.position = entry.version
            if self._path is None or not history.alike(
                paths.value_at(before, self._path), paths.value_at(reel.state, self._path)
            ):
                self._put(moment)
        return bool(found)

    def _put(self, moment: Moment) -> None:
        item = shown(moment)
        if self._path is not None:
            value = paths.value_at(moment.state, self._path)
            item["value"] = masked(value, self._path)
        self._ready.append(item)


def _is_behind(record: Execution) -> bool:
    """Say whether it waits for others with its state key, and begins with what they leave."""
    queued = record.status is Status.QUEUED and record.wake_at is None and record.attempt == 0
    return queued and record.state_key is not None
