"""How an attempt ends: results, failures, cancellation and the end of its time (DESIGN §2.7)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polos.core import failure, transitions
from polos.core.content import Content
from polos.core.model import Ending, Failure, Kind, Row, Status
from polos.errors import PolosError
from polos.worker.starting import in_memory

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.writer import Batch

CANCEL = "cancel"
TIMEOUT = "timeout"
_ASKED = "asked"


class Endings:
    """Ends one attempt, once."""

    __slots__ = ("_attempt", "_cancelling", "_clock", "_force", "_timer")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._clock = attempt.clock
        self._cancelling: str | None = None
        self._timer: Any = None
        self._force: Any = None

    @property
    def is_asked(self) -> bool:
        """Say whether a cancellation is on its way into the journal."""
        return self._cancelling == _ASKED

    @property
    def is_cancelled(self) -> bool:
        """Say whether a cancellation, or the end of its time, was delivered to the code."""
        return self._cancelling in (CANCEL, TIMEOUT)

    # -- time ---------------------------------------------------------------------------------

    @property
    def deadline(self) -> int | None:
        """When the execution's time is over; None if it has no limit or is being cancelled."""
        execution = self._attempt.execution
        limit = execution.run_timeout_seconds
        if limit is None or self._cancelling is not None:
            return None
        return execution.created_at + int(limit * 1e6)

    def watch_time(self) -> None:
        """Arm the end of the execution's time."""
        deadline = self.deadline
        if deadline is not None:
            seconds = (deadline - self._clock.now()) / 1e6
            self._timer = self._clock.call_later(seconds, self._time_over)

    def _time_over(self) -> None:
        attempt, deadline = self._attempt, self.deadline
        if attempt.sealed or attempt.ended or deadline is None:
            return
        if self._clock.now() < deadline:
            self.watch_time()
        elif attempt.parked:
            attempt.runner.wake(attempt)
        else:
            self._request(TIMEOUT)

    # -- cancellation -------------------------------------------------------------------------

    def cancel(self) -> None:
        """Deliver a cancellation that was asked for: journaled first, then to the root task."""
        attempt = self._attempt
        if attempt.execution.cancel_requested_at is None:
            attempt.execution.cancel_requested_at = self._clock.now()
        if attempt.parked:
            attempt.runner.wake(attempt)
        else:
            self._request(CANCEL)

    def deliver_due(self) -> None:
        """Deliver what was asked for, or ran out, while nobody ran the execution."""
        execution, deadline = self._attempt.execution, self.deadline
        if execution.cancel_requested_at is not None and execution.cancel_delivered_at is None:
            self._request(CANCEL)
        elif deadline is not None and deadline <= self._clock.now():
            self._request(TIMEOUT)

    def _request(self, why: str) -> None:
        attempt = self._attempt
        busy = attempt.sealed or attempt.ended or attempt.parking or attempt.pump.replaying
        if self._cancelling is not None or busy:
            return  # delivered already, or later: on replay's end, or when it is resumed
        self._cancelling = _ASKED
        now = self._clock.now()
        row = Row(
            attempt.writer.next_seq(), Kind.CANCEL, None, attempt.handed, ok=True, started_at=now
        )
        row.info, row.completed_at = why, now
        batch = attempt.writer.open()
        batch.cancel_delivered = True
        attempt.writer.add(batch, row)
        batch.turn.append((None, row))
        attempt.writer.send(batch)

    def deliver(self, row: Row) -> None:
        """The journaled cancellation is handed to the code, live or on replay."""
        attempt = self._attempt
        self._cancelling = row.info or CANCEL
        since = row.completed_at or row.started_at
        left = attempt.runner.cancel_seconds - (self._clock.now() - since) / 1e6
        self._force = self._clock.call_later(max(left, 0.0), self.force)
        attempt.runner.cancel_children(attempt.execution)
        if attempt.root is not None and not attempt.saga.is_closing:
            attempt.root.cancel()
        attempt.pump.settle()  # until its code has taken it, it does not wait for anything

    def force(self) -> None:
        """The deadline for cleaning up is over: end the execution whatever its code does."""
        attempt = self._attempt
        if attempt.sealed or attempt.ended:
            return
        batch = attempt.writer.open()
        attempt.unwind()
        self.end_cancelled(batch)

    # -- the end ------------------------------------------------------------------------------

    def end_cancelled(self, batch: Batch | None = None) -> None:
        """Write the ending of a cancelled or timed-out execution."""
        if self._cancelling == TIMEOUT:
            seconds = self._attempt.execution.run_timeout_seconds or 0.0
            status, failed = Status.FAILED, transitions.timeout_failure(seconds)
        else:
            status, failed = Status.CANCELLED, transitions.cancelled_failure()
        self._end(status, self._told(failed), None, batch)

    def end_with(self, value: Any) -> PolosError | None:
        """Complete with a result; returns the error, and ends nothing, if it cannot be recorded."""
        attempt = self._attempt
        try:
            if attempt.tracker is not None:
                attempt.tracker.check_end()
                if attempt.runner.prove_state:
                    attempt.tracker.prove()
            encoded = attempt.codec.encode(value)
            contents = in_memory(attempt.codec.take_contents())
        except PolosError as error:
            return error
        self._end(Status.COMPLETED, encoded.body, encoded.type, contents=contents)
        return None

    def end_failed(self, error: BaseException) -> None:
        """Fail with an error that left the code."""
        self._end(Status.FAILED, self._told(failure.of_execution(error)), None)

    def _told(self, failed: Failure) -> str:
        return failure.dump(transitions.left_undone(failed, self._attempt.saga.left()))

    def hand_back(self, wake_at: int, *, forget: list[int], retry_count: int | None) -> None:
        """Give the execution up: it is claimed again from its last commit after `wake_at`."""
        batch = self._attempt.writer.fresh()
        batch.status = Status.QUEUED
        batch.wake_at = wake_at
        batch.forget = forget
        batch.retry_count = retry_count
        self._attempt.waiting.over(batch, *forget)
        self._attempt.ended = True
        self._attempt.writer.send(batch)

    def _end(
        self,
        status: Status,
        body: str | None,
        type_: str | None,
        batch: Batch | None = None,
        contents: Sequence[Content] = (),
    ) -> None:
        """Write the ending, with the last state and everything that still rides."""
        attempt = self._attempt
        if attempt.streams.used and not attempt.sealed:
            attempt.streams.arrive()
        attempt.ended = True
        now = self._clock.now()
        batch = batch or attempt.writer.open()
        with contextlib.suppress(PolosError):  # cannot be dumped: the last good one stays
            attempt.writer.capture(batch, None)
        if attempt.waiting.stored:
            attempt.waiting.over(batch, *attempt.waiting.stored)
        execution = attempt.execution
        parent = execution.parent_id if execution.awaited else None
        batch.ending = Ending(status, body, type_, now, parent, with_children=self.is_cancelled)
        batch.ending.contents = contents
        if execution.state_key is not None:
            batch.ending.key = (execution.workflow_id, execution.state_key)
        execution.status, execution.completed_at, execution.result_type = status, now, type_
        execution.started_at = execution.started_at or now
        if status is Status.COMPLETED:
            execution.result = body
        else:
            execution.error = body
        attempt.writer.send(batch)
        self.stop_timers()

    def stop_timers(self) -> None:
        """Nothing more is due."""
        for handle in (self._timer, self._force):
            if handle is not None:
                handle.cancel()
