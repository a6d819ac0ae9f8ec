"""What an attempt waits for: moments and its inbox; and parking while it waits for nothing else.

An execution whose every open item is a wait is `waiting`: it has no owner, costs nothing, and its
coroutine is kept as a cache that goes on in place if a claim finds the journal where it stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from polos.core import suspension
from polos.core.model import InboxItem, Kind, Row, Start, Wait, Work
from polos.worker.asks import Ask

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.writer import Batch


_LOOKED_UP = (Kind.SUSPEND, Kind.WAIT_FOR_EVENT)


class Waiting:
    """The open waits of one attempt."""

    __slots__ = (
        "_attempt",
        "_by_ref",
        "_clock",
        "_gone",
        "_owners",
        "_unwanted",
        "_waits",
        "rung",
        "stored",
    )

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._clock = attempt.clock
        self._waits: set[Ask] = set()
        self._owners: list[asyncio.Future[None]] = []
        self._by_ref: dict[str, Ask] = {}
        self._gone: set[str] = set()
        """Inbox items (by id) that rows of this claim have closed."""
        self._unwanted: set[str] = set()
        """Inbox items (by id) that nobody waits for: they must not wake the execution again."""
        self.stored = {
            row.seq for row in attempt.work.rows if row.ok is None and row.kind in _LOOKED_UP
        }
        """Open rows (by seq) beside which the store keeps a wait."""
        self.rung = False
        """Something came while the execution was on its way to be parked."""

    # -- waiting ------------------------------------------------------------------------------

    def add(
        self,
        ask: Ask,
        row: Row | None,
        starts: Sequence[Start] = (),
        wait: Wait | None = None,
    ) -> None:
        """Let an ask wait for its moment or for its inbox; opens its row unless that is done."""
        attempt = self._attempt
        self._waits.add(ask)
        if row is not None:
            ask.opened = row
            batch = attempt.writer.open()
            attempt.writer.add(batch, row)
            batch.starts = [*batch.starts, *starts]
            if wait is not None:
                self.store(batch, wait)
            attempt.writer.send(batch)
        else:
            ask.opened = ask.row
            attempt.loop.call_soon(self.rest)
        if ask.due is not None:
            left = ask.due - self._clock.now()
            if row is None and left <= 0:  # came while nobody ran the execution
                self._fire(ask)
            else:
                self._arm(ask, left / 1e6)

    def discard(self, ask: Ask) -> None:
        """The ask waits no more."""
        self._waits.discard(ask)
        attempt = self._attempt
        if ask.opened is not None and ask.seq in self.stored and not attempt.sealed:
            self.over(attempt.writer.open(), ask.seq)  # the code gave it up

    def store(self, batch: Batch, wait: Wait) -> None:
        """Let others find what an open row waits for."""
        batch.waits = [*batch.waits, wait]
        self.stored.add(wait.seq)

    def over(self, batch: Batch, *rows: int) -> None:
        """Let nobody find any more what rows (by seq) waited for."""
        gone = self.stored.intersection(rows)
        if gone:
            batch.answered = [*batch.answered, *sorted(gone)]
            self.stored -= gone

    def hold(self, ask: Ask) -> None:
        """The ask is busy finding out whether its time is over: it does not only wait."""
        self._waits.discard(ask)

    def again(self, ask: Ask, seconds: float) -> None:
        """The ask waits as before, and looks at its time once more."""
        self._waits.add(ask)
        self._arm(ask, seconds)

    async def sleep(self, ask: Ask, row: Row | None) -> None:
        """Wait durably until `ask.due`, without an answer: the pause before a retry."""
        self.add(ask, row)
        if ask in self._waits:
            await self._attempt.pause(ask)

    def _arm(self, ask: Ask, seconds: float) -> None:
        ask.timer = self._clock.call_later(seconds, lambda: self._fire(ask))

    def _fire(self, ask: Ask) -> None:
        attempt = self._attempt
        if attempt.sealed or ask not in self._waits or ask.settled or ask.due is None:
            return
        left = ask.due - self._clock.now()
        if left > 0:  # timers of the loop may be a little early
            self._arm(ask, left / 1e6)
        elif attempt.parked:
            attempt.runner.wake(attempt)
        elif attempt.parking:
            self._arm(ask, 0.001)
        elif ask.kind in (Kind.RUN, Kind.STREAM, Kind.COMPENSATE):  # a pause before a retry is over
            self._waits.discard(ask)
            ask.release()
        elif ask.on_due is not None:
            ask.on_due()
        else:
            self.answer(ask, "null", None, ok=True)

    def answer(
        self,
        ask: Ask,
        body: str | None,
        type_: str | None,
        *,
        ok: bool,
        consumed: Sequence[str] = (),
    ) -> None:
        """Close an open row: what it waited for is there; its inbox items go in the same commit."""
        opened = ask.opened
        if opened is None or ask.settled:
            return
        self._waits.discard(ask)
        row = Row(
            opened.seq,
            opened.kind,
            opened.key,
            opened.asked,
            opened.call,
            ok=ok,
            body=body,
            type=type_,
            due_at=opened.due_at,
            info=opened.info,
            attempts=opened.attempts,
            started_at=opened.started_at,
            completed_at=self._clock.now(),
        )
        ask.opened = None
        batch = self._attempt.writer.open()
        if consumed:
            self.remove(batch, consumed)
        for ref in consumed:
            self._by_ref.pop(ref, None)
        self.over(batch, row.seq)
        self._attempt.writer.ride(ask, row)

    # -- the inbox ----------------------------------------------------------------------------

    def take(self, items: Sequence[InboxItem]) -> None:
        """Give each item to the ask that waits for it."""
        attempt = self._attempt
        # On its way to be parked it may be claimed again before it hears of it: what it wrote under
        # the old claim would be refused. The claim brings the items anew.
        gone = attempt.parked or attempt.parking or attempt.sealed
        if gone or attempt.pump.replaying:
            return
        self._unwanted.clear()
        for item in sorted(items, key=_in_order):
            if item.id in self._gone:
                continue
            ask = self._by_ref.get(item.ref)
            if ask is None or ask.is_over:
                if item.kind != suspension.EARLY:  # those do not count before they are asked for
                    self._unwanted.add(item.id)
            elif ask.on_item is not None and not ask.settled:
                ask.on_item(item)

    def expect(self, ask: Ask, refs: Iterable[str]) -> None:
        """Note which inbox items (by `ref`) are for an ask."""
        for ref in refs:
            self._by_ref[ref] = ask

    def remove(self, batch: Batch, items: Sequence[str]) -> None:
        """Take inbox items (by id) away with a commit."""
        batch.consumed = [*batch.consumed, *items]
        self._gone.update(items)

    def for_inbox(self) -> bool:
        """Say whether an inbox item could be for this attempt."""
        return bool(self._by_ref)

    def seen(self) -> int:
        """Return how many inbox items are known, and kept until others come."""
        return sum(ask.seen for ask in self._waits) + len(self._unwanted)

    # -- parking ------------------------------------------------------------------------------

    def is_all(self, batch: Batch | None) -> bool:
        """Say whether every open item is a wait, with nothing on its way but `batch`."""
        attempt = self._attempt
        return (
            bool(self._waits)
            and len(self._waits) == attempt.open_asks
            and not (attempt.bodies or self._owners)
            and attempt.writer.in_flight <= {batch}
            and attempt.pump.idle
            and not (attempt.pump.replaying or attempt.parked or attempt.parking)
            and not (attempt.ended or attempt.draining or attempt.ending.is_asked)
        )

    def wake_at(self) -> int | None:
        """Return when the first of the moments comes that the execution waits for."""
        moments = [ask.due for ask in self._waits if ask.due is not None]
        deadline = self._attempt.ending.deadline
        if deadline is not None:
            moments.append(deadline)
        return min(moments, default=None)

    def rest(self) -> None:
        """If the code only waits now, say so in the store and give up the claim."""
        attempt = self._attempt
        if not attempt.sealed and self.is_all(None):
            batch = attempt.writer.open()
            batch.resting = True
            attempt.writer.capture(batch, None)
            attempt.writer.send(batch)

    def parked(self, *, woken: bool) -> None:
        """The execution is `waiting` in the store; with `woken` something came meanwhile."""
        attempt = self._attempt
        attempt.parking = False
        attempt.parked = True
        if attempt.sealed:
            return
        rung, self.rung = self.rung, False
        attempt.runner.park(attempt, woken=woken or rung or bool(self._owners))

    async def own(self) -> None:
        """Claim the execution again: code that was not waiting wants to write."""
        attempt = self._attempt
        future: asyncio.Future[None] = attempt.loop.create_future()
        self._owners.append(future)
        if attempt.parked:
            attempt.runner.wake(attempt)
        await future

    def resume(self, work: Work) -> None:
        """Go on in place under a new claim."""
        attempt = self._attempt
        owners, self._owners = self._owners, []
        for future in owners:
            if not future.done():
                future.set_result(None)
        attempt.ending.deliver_due()  # first: the end of a child may be a consequence of it
        self._gone.clear()
        self.take(work.inbox)
        for ask in list(self._waits):
            if ask.due is not None and ask.due <= self._clock.now():
                self._fire(ask)
        if not owners:
            attempt.loop.call_soon(self.rest)

    def refuse(self, error: BaseException) -> None:
        """The attempt is sealed: raise where code waits for the claim."""
        for future in self._owners:
            if not future.done():
                future.set_exception(error)


def _in_order(item: InboxItem) -> str:
    # Events of one wait by their numbers, which end their ids; the others as they came.
    return item.id if item.kind == "event" else ""
