"""Watching the states of many executions: of each, every recorded change once and in order.

What other processes write is found by where the state of each open execution stands, and of each
that was created lately. What is read ahead of the code is bounded: one window of one execution,
and the names of those that have news.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from polos.client.past import fields_of, shown
from polos.client.watching import WINDOW, Bell
from polos.core import ids, watching
from polos.core import where as conditions
from polos.core.history import Moment, Reel
from polos.core.model import Execution, StateEntry
from polos.core.watching import IDLE_SHARE, OVERLAP_US, POLL_SECONDS, Cursor, Head
from polos.core.where import MISSING, Condition
from polos.errors import ExecutionNotFoundError

DEEP_SECONDS = 5.0
"""Between two looks for what appeared late."""
BUSY_SECONDS = 0.25
"""So long news of this process may keep a watcher from looking for that of others."""
RECENT_US = 5_000_000
"""So far back executions are looked for often; `OVERLAP_US` back now and then."""
NEWS_MAX = 1000
"""Executions with news that are kept by name; more of them: all are looked at."""
REELS_MAX = 64
"""Executions whose last state is kept."""
FORGET_AT = 10_000
"""So many known executions are worth forgetting some that ended."""


@dataclass(slots=True)
class _Place:
    """How far an execution was read."""

    version: int
    shown: int
    """Up to here the code has it all."""
    created_at: int
    done: bool = False
    """It has ended, and was read to the end."""
    is_new: bool = False
    """Its state as it is was not given yet."""


class Watch:
    """An async iterator over recorded changes of executions; it ends with `aclose()` only.

    `cursor` is text that says what it gave: `watch(after=cursor)` goes on there, also in another
    process.
    """

    def __init__(
        self,
        client: Any,
        workflow_id: str | None,
        where: Mapping[str, Any] | None,
        after: str | None,
        since: int | None,
    ) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._where: Sequence[Condition] = conditions.parse(where)
        self._cursor = watching.load_cursor(after)
        self._since = since
        self._watching: Any = None
        self._bell = Bell()
        self._begun = False
        self._closed = False
        self._at = 0
        """When all open executions, and all late ones, were last looked for."""
        self._places: dict[str, _Place] = {}
        self._reels: OrderedDict[str, Reel] = OrderedDict()
        self._behind: OrderedDict[str, None] = OrderedDict()
        self._came: set[str] = set()
        self._look = True
        self._changed = False
        """Another process may have committed since the last look."""
        self._next_look = self._next_deep = self._busy_since = 0.0
        self._ready: deque[tuple[dict[str, Any], int]] = deque()

    # -- called by the engine -----------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Say whether its code waits for a change."""
        return self._bell.waits

    def ring(self) -> None:
        """There may be news."""
        self._look = True
        self._bell.ring()

    def came(self, execution_ids: Collection[str]) -> None:
        """There is news of these."""
        if len(self._came) + len(execution_ids) > NEWS_MAX:
            self._look = True
        else:
            self._came.update(execution_ids)
        self._bell.ring()

    def poll(self, moment: float, *, changed: bool) -> None:
        """Look if it is time for it."""
        self._changed = self._changed or changed
        if (self._changed and moment >= self._next_look) or moment >= self._next_deep:
            self._changed = False
            self.ring()

    # -- the life of a watcher ----------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """What was given up to now, as text; it has a part for each open execution."""
        if not self._begun and self._cursor is not None:
            return self._cursor.dump()
        late = self._at - OVERLAP_US
        seen = {
            id_: place.shown
            for id_, place in self._places.items()
            if not place.done or place.shown < place.version or place.created_at >= late
        }
        return Cursor(self._at, seen).dump()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self._ready:
                item, version = self._ready.popleft()
                place = self._places.get(item["execution_id"])
                if place is not None:
                    place.shown = version
                return item
            await self._fill()

    async def aclose(self) -> None:
        """Stop watching."""
        self._closed = True
        if self._watching is not None:
            self._watching.leave_many(self)
        self._bell.ring()

    def __del__(self) -> None:
        watching = getattr(self, "_watching", None)
        if watching is not None and not self._closed:
            watching.leave_many(self)

    # -- what there is to read ----------------------------------------------------------------

    async def _fill(self) -> None:
        engine = (await self._client.node()).engine
        if self._watching is not engine.watching:
            self._watching = engine.watching
            self._watching.enter_many(self)
            self._look = True
        self._bell.rung = False
        if not self._begun:
            await self._begin(engine)
        if self._is_due(engine.clock.monotonic()):
            await self._look_around(engine)
        elif self._behind:
            await self._read(engine, next(iter(self._behind)))
        elif self._came:
            came, self._came = self._came, set()
            try:
                await self._note(engine, await engine.watching.heads(came))
            except BaseException:
                self._came |= came
                raise
        elif self._look:
            await self._look_around(engine)
        else:
            await self._bell.wait(engine.watching)
            self._busy_since = engine.clock.monotonic()

    def _is_due(self, moment: float) -> bool:
        """Say whether to look before anything else: news of this process may never end."""
        if moment >= self._next_deep:
            return True
        is_wanted = self._look or moment - self._busy_since > BUSY_SECONDS
        return is_wanted and moment >= self._next_look

    async def _begin(self, engine: Any) -> None:
        cursor = self._cursor
        since = engine.clock.now() if self._since is None else self._since
        self._at = since if cursor is None else cursor.at
        floor = ids.first_id(max(self._at - OVERLAP_US, 0))
        heads: list[Head] = await engine.watching.current(self._workflow_id, floor)
        if cursor is not None:
            known = {head.id for head in heads}
            heads += await engine.watching.heads(cursor.seen.keys() - known)
        for head in heads:
            version = None if cursor is None else cursor.seen.get(head.id)
            if self._workflow_id not in (None, head.workflow_id):
                continue
            if version is not None:
                self._places[head.id] = _Place(version, version, head.created_at)
            elif cursor is None and head.created_at < since:
                self._places[head.id] = await self._known(engine, head, since)
        await self._note(engine, heads)
        self._next_deep = engine.clock.monotonic() + DEEP_SECONDS
        self._look, self._begun = False, True

    async def _known(self, engine: Any, head: Head, since: int) -> _Place:
        """Return the place of an execution that was there when the watching began."""
        version = head.version
        if head.completed_at is None:
            is_new = version >= 0
            return _Place(version, version - is_new, head.created_at, is_new=is_new)
        if head.completed_at >= since:
            version = await self._version_at(engine, head.id, since)
        return _Place(version, version, head.created_at)

    async def _look_around(self, engine: Any) -> None:
        self._look = False
        try:
            await self._look_at_all(engine)
        except BaseException:  # also if the code does not wait for it any more
            self._look = True
            raise

    async def _look_at_all(self, engine: Any) -> None:
        begun = engine.clock.monotonic()
        now = engine.clock.now()
        deep = begun >= self._next_deep
        floor = ids.first_id(max(now - (OVERLAP_US if deep else RECENT_US), 0))
        heads: list[Head] = await engine.watching.current(self._workflow_id, floor)
        found = {head.id for head in heads}
        others = {id_ for id_, place in self._places.items() if not place.done} - found
        more: list[Head] = await engine.watching.heads(others)
        for gone in others - {head.id for head in more}:
            self._forget(gone)
        await self._note(engine, [*heads, *more])
        took = engine.clock.monotonic() - begun
        self._busy_since = begun
        self._next_look = begun + max(POLL_SECONDS, IDLE_SHARE * took) - POLL_SECONDS / 2
        if deep:
            self._at = now
            self._next_deep = begun + max(DEEP_SECONDS, IDLE_SHARE * took)
            self._forget_some()

    async def _note(self, engine: Any, heads: Sequence[Head]) -> None:
        for head in heads:
            if self._workflow_id not in (None, head.workflow_id):
                continue
            place = self._places.get(head.id)
            if place is None:
                version = await self._first(engine, head)
                place = self._places[head.id] = _Place(version, version, head.created_at)
            if head.version > place.version or place.is_new:
                place.done = False
                self._behind[head.id] = None
            else:
                place.done = head.ended

    async def _first(self, engine: Any, head: Head) -> int:
        """Return the version behind which an execution is news that was not known."""
        if head.created_at >= self._at - OVERLAP_US:
            return -1
        # It had ended when all that were open were looked for, and goes on since then.
        return await self._version_at(engine, head.id, self._at)

    async def _version_at(self, engine: Any, execution_id: str, at: int) -> int:
        try:
            record = await engine.require(execution_id)
        except ExecutionNotFoundError:
            return -1
        version = await engine.states.version_at(record, at)
        return -1 if version is None else version

    def _forget(self, execution_id: str) -> None:
        self._places.pop(execution_id, None)
        self._behind.pop(execution_id, None)
        self._reels.pop(execution_id, None)

    def _forget_some(self) -> None:
        if len(self._places) < FORGET_AT:
            return
        late = self._at - OVERLAP_US
        for id_, place in list(self._places.items()):
            if place.done and place.shown == place.version and place.created_at < late:
                self._forget(id_)

    # -- reading ------------------------------------------------------------------------------

    async def _read(self, engine: Any, execution_id: str) -> None:
        place = self._places[execution_id]
        try:
            record = await engine.require(execution_id)
        except ExecutionNotFoundError:
            self._forget(execution_id)
            return
        if place.is_new:
            moments = await self._current(engine, record, place)
        else:
            moments = await self._next(engine, record, place)
        self._behind.pop(execution_id, None)  # nothing is awaited from here on
        fitting = [each for each in moments if self._fits(record, each)]
        for each in fitting:
            version = place.version if each is fitting[-1] else each.entry.version
            self._ready.append((_item(record, each), version))
        if not fitting:
            place.shown = place.version
        if not moments and record.completed_at is not None:
            place.done = True
            self._reels.pop(execution_id, None)
        elif moments:  # there may be more, or an end
            self._behind[execution_id] = None

    async def _current(self, engine: Any, record: Execution, place: _Place) -> list[Moment]:
        entries = await engine.states.up_to(record, place.version)
        place.is_new = False
        reel = Reel(fields_of(entries))
        self._keep(record.id, reel)
        return [Moment(entries[-1], reel.fields, reel.state, [])]

    async def _next(self, engine: Any, record: Execution, place: _Place) -> list[Moment]:
        entries = await engine.states.between(record, place.version, place.version + WINDOW)
        if not entries:
            return []
        reel = self._reels.pop(record.id, None)
        if reel is None:
            base: list[StateEntry] = []
            if place.version >= 0:
                base = await engine.states.up_to(record, place.version)
            reel = Reel(fields_of(base))
        moments = [reel.advance(entry) for entry in entries]
        place.version = entries[-1].version
        self._keep(record.id, reel)
        return moments

    def _keep(self, execution_id: str, reel: Reel) -> None:
        self._reels[execution_id] = reel
        if len(self._reels) > REELS_MAX:
            self._reels.popitem(last=False)

    def _fits(self, record: Execution, moment: Moment) -> bool:
        return all(
            conditions.fits(each, _found(each, record, moment.fields)) for each in self._where
        )


def _found(each: Condition, record: Execution, fields: Mapping[str, bytes]) -> Any:
    if not each.is_column:
        return conditions.found_in(each, record, dict(fields))
    value = getattr(record, each.source)
    if value is None and (each.op == "exists" or each.value is not None):
        return MISSING  # as the database has it: nothing compares with what is not there
    return value


def _item(record: Execution, moment: Moment) -> dict[str, Any]:
    return {
        "execution_id": record.id,
        "workflow_id": record.workflow_id,
        "status": str(record.status),
        **shown(moment),
    }
