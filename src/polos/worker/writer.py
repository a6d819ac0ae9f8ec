"""What one attempt writes: rows gathered into one change per batch, handed over once durable.

Rule 1: a row is handed to the code only after its commit; rows without an outside effect may ride
with the next one, and no body starts before they are durable (JOURNAL 4).
Rule 2: rows get their turn when their batch is formed, and are handed over in that order.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from polos.core.model import Change, Event, Kind, Row, StateEntry, Status, Work
from polos.core.work import Task
from polos.worker.asks import Ask
from polos.worker.indexing import Index

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

Turn = list[tuple[Ask | None, Row]]
FEW = 32
"""Chunks up to which a commit may be made on the loop thread."""
_NOBODY = -1
"""An attempt that no execution ever has: the fence refuses it."""


class Batch(Change):
    """A change that still gathers rows, and whom to answer once it is durable."""

    riding = False
    """Holds a row that was handed to the code before it is durable."""
    resting = False
    """Sent to say that the code only waits now."""
    submitted = False
    durable: asyncio.Future[None] | None = None
    chunks: list[Event] | None = None
    """Its events, while chunks gather among them."""
    streamed = 0
    """How many chunks are among its events, and how many bytes they have."""
    weight = 0

    def __init__(self, writer: Writer, root_id: str, execution_id: str) -> None:
        super().__init__(root_id, execution_id, 0)
        self._writer = writer
        self.turn: Turn = []

    def seal(self) -> None:
        """See `Change.seal`; one with work is formed by it."""
        self._writer.form(self)

    def settle(self) -> None:
        """Let those go on who wait for the commit."""
        if self.durable is not None and not self.durable.done():
            self.durable.set_result(None)

    def done(self, result: BaseException | str | None) -> None:
        """See `Change.done`."""
        self._writer.written(self, result)


class Writer:
    """Gathers, sends and hands over the rows of one attempt."""

    __slots__ = (
        "_attempt",
        "_backend",
        "_batch",
        "_clock",
        "_first_turn",
        "_held",
        "_index",
        "_marked",
        "_signed",
        "_top",
        "_turn",
        "_working",
        "broken",
        "in_flight",
        "seq",
    )

    def __init__(self, attempt: Attempt, work: Work) -> None:
        self._attempt = attempt
        self._backend = attempt.backend
        self._clock = attempt.clock
        self.seq = self._top = max((r.seq for r in work.rows), default=0)
        self._turn = self._first_turn = max((r.turn or 0 for r in work.rows), default=0)
        self._marked = work.execution.started_at is not None
        """Whether the store shows the execution as running, or a change on its way does."""
        places = attempt.workflow.index_state
        self._index = Index(attempt.workflow.id, places) if places else None
        self._signed = False
        """Whether an entry of the state says who recorded it."""
        self._batch: Batch | None = None
        self._working: Batch | None = None
        """Has work in the store: what comes behind it waits in `_held` until it is durable."""
        self._held: list[Batch] = []
        self.in_flight: set[Batch] = set()
        self.broken = False
        """A change was refused: those behind it, which build on it, must not be written."""

    # -- rows ---------------------------------------------------------------------------------

    @property
    def has_recorded(self) -> bool:
        """Say whether this attempt has handed anything over that was not recorded before."""
        return self._turn != self._first_turn

    def next_seq(self) -> int:
        """Return the number of a new row."""
        self.seq += 1
        return self.seq

    def new_row(self, ask: Ask, now: int) -> Row:
        """Return a row for an ask, open and without a place in a turn."""
        if not ask.seq:
            ask.seq = self.next_seq()
        return Row(
            ask.seq,
            ask.kind,
            ask.key,
            ask.asked,
            ask.call,
            info=ask.info,
            attempts=ask.attempts,
            started_at=ask.started_at or now,
        )

    # -- gathering ----------------------------------------------------------------------------

    def open(self) -> Batch:
        """Return the batch that gathers now."""
        batch = self._batch
        if batch is None:
            execution = self._attempt.execution
            batch = self._batch = Batch(self, execution.root_id, execution.id)
        return batch

    def fresh(self) -> Batch:
        """Return the batch that gathers now, or an empty one if what it gathered is void."""
        if self.broken:
            self._batch = None
        return self.open()

    def unsent(self) -> Batch | None:
        """Return the batch that gathers, if it was not sent yet."""
        batch = self._batch
        return None if batch is None or batch.submitted else batch

    def add(self, batch: Batch, row: Row, own: list[Any] | None = None) -> None:
        """Put a row, with the state as of now, into a batch.

        `own` is what the body of the row's step changed.
        """
        tracker = self._attempt.tracker
        if tracker is not None:
            entry = tracker.capture(row.key, row.completed_at or row.started_at, own)
            if entry is not None:
                self._put(batch, entry)
            row.state_version = tracker.version
            if own is not None:
                tracker.pending[row.seq] = own
        batch.rows.append(row)

    def capture(self, batch: Batch, key: str | None) -> bool:
        """Put the state as of now into a batch, without a row; False if nothing changed."""
        tracker = self._attempt.tracker
        entry = None if tracker is None else tracker.capture(key, self._clock.now())
        if entry is not None:
            self._put(batch, entry)
        return entry is not None

    def _put(self, batch: Batch, entry: StateEntry) -> None:
        attempt = self._attempt
        entry.attempt = attempt.number
        if not self._signed:
            self._signed = True
            entry.origin = json.dumps(
                {
                    "worker_id": self._backend.worker_id,
                    "code_version": attempt.workflow.code_version,
                }
            )
        batch.states = [*batch.states, entry]
        if self._index is not None and attempt.tracker is not None:
            batch.index = [*batch.index, *self._index.changed(attempt.tracker.recorded)]

    def record(self, ask: Ask, row: Row, own: list[Any] | None = None) -> None:
        """Write a row, and hand it over after its commit."""
        self._attempt.check_sealed()
        row.pinned = self._attempt.is_pinned(ask)
        batch = self.open()
        self.add(batch, row, own)
        batch.turn.append((ask, row))
        self.send(batch)

    def ride(self, ask: Ask, row: Row) -> None:
        """Hand over a row without an outside effect; it is written with the next commit.

        In concurrent code, or behind rows in flight, it is written like any other: what is
        handed over first must also stand first in the journal.
        """
        attempt = self._attempt
        attempt.check_sealed()
        row.pinned = attempt.is_pinned(ask)
        batch = self.open()
        self.add(batch, row)
        if not attempt.alone or self.in_flight or batch.turn or not attempt.pump.idle:
            batch.turn.append((ask, row))
            self.send(batch)
            return
        self._turn += 1
        row.turn = self._turn
        if row.kind not in (Kind.UUID, Kind.RANDOM):
            batch.riding = True
        attempt.hand_over(ask, row, replayed=False)

    async def keep(self, row: Row) -> None:
        """Write an open row, and return once it is durable."""
        batch = self.open()
        self.add(batch, row)
        batch.riding = True
        await self.flush()

    # -- sending ------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Hand a batch to the committer; at once if nobody else in the process has work."""
        if batch.submitted:
            return
        batch.submitted = True
        self.in_flight.add(batch)
        if self._working is not None:
            self._held.append(batch)
            return
        lone = batch.streamed <= FEW and self._attempt.runner.sole
        if not (lone and self._backend.commit_now(batch)):
            self._backend.submit(batch)

    def transact(self, work: Task) -> Batch:
        """Have the store do some work in the transaction that writes what gathers until then."""
        batch = self._working = self.open()
        batch.attempt = _NOBODY if self.broken else self._attempt.number
        batch.work = work
        batch.submitted = True
        self.in_flight.add(batch)
        self._backend.transact(batch)
        return batch

    def _let_go(self, done: Batch) -> None:
        self._working = None
        if self._batch is done:  # refused before it was formed: nothing joins it any more
            self._batch = None
        held, self._held = self._held, []
        for batch in held:
            self._backend.submit(batch)

    def form(self, batch: Batch) -> None:
        """The batch is taken for a commit: give its rows their turn, decide the status."""
        attempt = self._attempt
        if self._batch is batch:
            self._batch = None
        void = self.broken and batch.status is not Status.QUEUED
        batch.attempt = _NOBODY if void else attempt.number
        last = batch.rows[-1] if batch.rows else None
        if last is not None:
            batch.new = len(batch.rows) == 1 and last.seq > self._top
            self._top = max(self._top, *[row.seq for row in batch.rows])
        batch.at = (last.completed_at or last.started_at) if last else self._clock.now()
        if batch.turn:
            self._turn += 1
            for _, row in batch.turn:
                row.turn = self._turn
        if batch.ending is not None or batch.status is not None:
            return
        # In concurrent code others may be about to ask: `Waiting.rest` decides once they had time.
        decided = attempt.alone or batch.resting
        if decided and not batch.turn and attempt.waiting.is_all(batch):
            batch.status = Status.WAITING
            batch.wake_at = attempt.waiting.wake_at()
            batch.seen = attempt.waiting.seen()
            attempt.parking = True
        elif not self._marked:
            batch.status = Status.RUNNING
        self._marked = True

    def _tell_watchers(self, batch: Batch) -> None:
        watching = self._backend.watching
        if watching.active:
            watching.committed(batch)

    def written(self, batch: Batch, result: BaseException | str | None) -> None:
        attempt = self._attempt
        self.in_flight.discard(batch)
        if batch is self._working:
            self._let_go(batch)
        if batch.streamed:
            attempt.streams.settle(batch)
        batch.settle()
        if isinstance(result, BaseException):
            self.broken = True
            attempt.refused(result)
            return
        self._tell_watchers(batch)
        attempt.runner.committed(attempt, batch)
        if batch.ending is None:
            self._go_on(batch, woken=result == Status.QUEUED)

    def _go_on(self, batch: Batch, *, woken: bool) -> None:
        attempt = self._attempt
        if batch.status is Status.WAITING:
            attempt.waiting.parked(woken=woken)
        elif batch.waits and not attempt.sealed:
            attempt.runner.news.ring(attempt.execution_id)  # what came before may be for them
        if attempt.sealed:
            return
        if attempt.draining:
            attempt.runner.drained(attempt)
        elif batch.turn:
            attempt.pump.deliver(batch.turn)
        elif attempt.pump.idle:
            # Also alone: what rests when a turn has settled did not while this was in flight.
            if attempt.alone:
                attempt.waiting.rest()
            else:
                attempt.pump.settle()

    # -- the barrier --------------------------------------------------------------------------

    def has_riders(self) -> bool:
        """Say whether something was handed to the code that is not durable yet."""
        batch = self._batch
        if batch is not None and batch.riding:
            return True
        return bool(self.in_flight) and any(b.riding for b in self.in_flight)

    async def flush(self) -> None:
        """Return once everything that was handed to the code is durable."""
        batch = self._batch
        if batch is not None and batch.riding:
            self.send(batch)
        for flying in list(self.in_flight):
            if flying.riding:
                if flying.durable is None:
                    flying.durable = self._attempt.loop.create_future()
                await flying.durable
        self._attempt.check_sealed()

    async def rest(self) -> None:
        """Return once everything that was sent is durable."""
        for flying in list(self.in_flight):
            if flying.durable is None:
                flying.durable = self._attempt.loop.create_future()
            await flying.durable
        self._attempt.check_sealed()

    # -- for readers (JOURNAL 5, 14) ----------------------------------------------------------

    def tick(self, moment: float, body_seconds: float, state_seconds: float) -> None:
        """Write what readers should see by now: running bodies, changed state, riding rows."""
        now = self._clock.now()
        due = self.unsent() is not None
        for ask, since in self._attempt.bodies.items():
            if moment - since >= body_seconds and not ask.seq:
                self.open().rows.append(self.new_row(ask, now))
                due = True
        tracker = self._attempt.tracker
        since = None if tracker is None else tracker.dirty_since
        if tracker is not None and since is not None and moment - since >= state_seconds:
            due = self._write_state(tracker.dirty_key, now) or due
        if due or (not self._marked and self._attempt.bodies):
            self.send(self.open())

    def _write_state(self, key: str | None, now: int) -> bool:
        batch = self.open()
        if not self.capture(batch, key):
            return False
        row = Row(self.next_seq(), Kind.STATE, key, self._attempt.handed, ok=True, started_at=now)
        row.completed_at = now
        row.state_version = batch.states[-1].version
        row.pinned = self._attempt.alone
        batch.rows.append(row)
        return True
