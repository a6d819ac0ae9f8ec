"""The verbs of `ctx.step` on events: publishing them, and waiting for one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polos.core import events as rules
from polos.core import failure, ids
from polos.core.content import Dumped
from polos.core.model import Event, Failure, InboxItem, Kind, Row, Wait
from polos.worker import bodies
from polos.worker.asks import Ask
from polos.worker.once import once
from polos.worker.starting import in_memory
from polos.workflow.event import EventPayload

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

Predicate = Callable[[EventPayload], object]
_TYPE = json.dumps(f"{EventPayload.__module__}:{EventPayload.__qualname__}")


class EventCalls:
    """What one attempt publishes, and waits for on topics."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    # -- publishing ---------------------------------------------------------------------------

    async def publish(
        self, key: str, topic: str | None, event_type: str | None, dumped: Dumped
    ) -> None:
        """Publish an event with the step's own row; without a topic on that of the tree."""
        data, contents = dumped.text, in_memory(dumped.contents)
        attempt = self._attempt
        execution = attempt.execution
        own = rules.workflow_topic(execution.root_workflow_id, execution.root_id)

        def live(ask: Ask) -> None:
            attempt.look(ask)
            now = attempt.clock.now()
            row = attempt.writer.new_row(ask, now)
            row.ok, row.body, row.completed_at = True, "null", now
            if contents:
                batch = attempt.writer.open()
                batch.contents = [*batch.contents, *contents]
            told = {"topic": None if topic == own else topic, "event_type": event_type}
            row.info = json.dumps(told)
            if told["topic"] is None:  # read from here when somebody reads that topic
                row.info = f'{row.info[:-1]}, "data": {data}}}'
            else:
                event = self._event(told["topic"], ask.key, event_type, data, now)
                batch = attempt.writer.open()
                batch.events = [*batch.events, event]
            attempt.writer.record(ask, row)

        await once(attempt, Kind.PUBLISH, key, live)

    def _event(self, topic: str, key: str, type_: str | None, data: str, now: int) -> Event:
        # The same id however often it is sent: a batch may be sent again.
        id_ = ids.derived_uuid(self._attempt.execution_id, f"{key}/event")
        return Event(topic, id_, type_, data, now, 0, None, self._attempt.execution_id)

    # -- waiting ------------------------------------------------------------------------------

    async def wait_for(
        self,
        key: str,
        topic: str,
        timeout: float | None,
        filter_: str | None,
        predicate: Predicate | None,
    ) -> Any:
        """Wait for an event that is published after this is recorded."""

        def live(ask: Ask) -> None:
            if ask.row is not None:
                self._take_up(ask, ask.row, topic, filter_, predicate)
            else:
                self._attempt.look(ask)
                self._open(ask, topic, timeout, filter_, predicate)

        return await once(self._attempt, Kind.WAIT_FOR_EVENT, key, live)

    def _open(
        self,
        ask: Ask,
        topic: str,
        timeout: float | None,
        filter_: str | None,
        predicate: Predicate | None,
    ) -> None:
        attempt = self._attempt
        now = attempt.clock.now()
        row = attempt.writer.new_row(ask, now)
        row.info = json.dumps({"topic": topic})
        if timeout is not None:
            row.due_at = ask.due = now + int(timeout * 1e6)
        _Reception(attempt, ask, predicate)
        attempt.waiting.add(ask, row, wait=self._wait(row, topic, filter_))
        attempt.backend.topics.await_topic(topic)

    def _wait(self, row: Row, topic: str, filter_: str | None) -> Wait:
        execution = self._attempt.execution
        key = (execution.root_id, execution.id, row.seq)
        kind = Kind.WAIT_FOR_EVENT
        return Wait(*key, kind, row.key or "", row.started_at, topic, filter_, None, row.due_at)

    def _take_up(
        self, ask: Ask, row: Row, topic: str, filter_: str | None, predicate: Predicate | None
    ) -> None:
        """Wait on: the row is open, and its event may be there."""
        attempt = self._attempt
        waiting = attempt.waiting
        ask.seq, ask.due, ask.opened = row.seq, row.due_at, row
        reception = _Reception(attempt, ask, predicate)
        waiting.take(attempt.work.inbox)
        if reception.is_over:
            return
        if attempt.execution.retry_count:  # it had failed, and its waits were over
            waiting.store(attempt.writer.open(), self._wait(row, topic, filter_))
        waiting.add(ask, None)
        attempt.backend.topics.await_topic(topic)


class _Reception:
    """An open wait: it takes the first event that fits, or the end of its time."""

    def __init__(self, attempt: Attempt, ask: Ask, predicate: Predicate | None) -> None:
        self._attempt = attempt
        self._ask = ask
        self._predicate = predicate
        self._refused: list[str] = []
        """Items of events that do not fit."""
        self._sending = False
        ask.on_item = self.take
        ask.on_due = self.expire
        attempt.waiting.expect(ask, [rules.item_ref(ask.seq)])

    @property
    def is_over(self) -> bool:
        """Say whether its row has closed."""
        return self._ask.opened is None

    def take(self, item: InboxItem) -> None:
        """Close the row with an event, unless the code does not want it."""
        if self.is_over:
            return
        if item.id in self._refused:
            self._drop()
            return
        try:
            fits = self._predicate is None or self._predicate(
                EventPayload.model_validate_json(item.body or "{}")
            )
        except bodies.PASSING:
            raise
        except BaseException as error:
            text = f"the filter of step {self._ask.key!r} failed: {failure.spelled(error)}"
            failed = Failure("StepExecutionError", text, type(error).__name__, self._ask.key)
            self._close(failure.dump(failed), None, [item.id], ok=False)
            return
        if fits:
            self._close(item.body, _TYPE, [item.id], ok=True)
        else:
            self._refused.append(item.id)
            self._drop()

    def _drop(self) -> None:
        """Remove what does not fit, soon: what lies in the inbox would wake the execution."""
        if not self._sending:
            self._sending = True
            self._attempt.loop.call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        attempt = self._attempt
        if self.is_over or attempt.sealed or attempt.parked or attempt.parking:
            return
        batch = attempt.writer.open()
        refused, self._refused = self._refused, []
        attempt.waiting.remove(batch, refused)
        attempt.writer.send(batch)

    def expire(self) -> None:
        """The time is over."""
        opened = self._ask.opened
        if opened is None or opened.due_at is None:
            return
        moment = rules.moment(opened.due_at).isoformat()
        text = f"Event wait expired at {moment}"
        failed = Failure("WaitTimeoutError", text, "TimeoutError", self._ask.key)
        # Its event may have come at this moment: nobody wants it any more.
        self._close(failure.dump(failed), None, [rules.item_id(self._ask.seq)], ok=False)

    def _close(self, body: str | None, type_: str | None, gone: list[str], *, ok: bool) -> None:
        consumed = [*self._refused, *gone]
        self._attempt.waiting.answer(self._ask, body, type_, ok=ok, consumed=consumed)
