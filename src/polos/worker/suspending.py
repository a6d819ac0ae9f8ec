"""`ctx.step.suspend` and `ctx.step.resume`: questions to the outside, and answers to others'."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from polos.core import failure, forms, ids, marks, suspension
from polos.core.model import Failure, InboxItem, Kind, Row, Wait
from polos.core.suspension import Answer
from polos.errors import ConflictError, ExecutionNotFoundError, FormError, UsageError
from polos.worker.asks import Ask
from polos.worker.once import once
from polos.worker.starting import in_memory

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

log = logging.getLogger("polos.worker")

APPROVAL_URL = "_approval_url"
LOOK_AGAIN_SECONDS = 0.2
"""Until a time that was found not to be over yet is looked at once more."""


class Suspensions:
    """What one attempt asks people and other workflows, and answers them."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def suspend(self, key: str, data: Any, timeout: float | None) -> Any:
        """Wait for an answer (see `Steps.suspend`); `timeout` in seconds."""

        def live(ask: Ask) -> None:
            if ask.row is not None:
                self._take_up(ask, ask.row)
            else:
                self._attempt.look(ask)
                self._open(ask, data, timeout)

        return await once(self._attempt, Kind.SUSPEND, key, live)

    def _open(self, ask: Ask, data: Any, timeout: float | None) -> None:
        attempt = self._attempt
        data = self._told(ask, data)
        body = attempt.codec.encode(data, what="data").body
        contents = in_memory(attempt.codec.take_contents())
        now = attempt.clock.now()
        row = attempt.writer.new_row(ask, now)
        row.info, row.contents = body, contents
        try:
            form = forms.of(json.loads(body))
        except forms.BrokenForm as error:
            text = f"Step {ask.key!r} cannot suspend: {error}"
            failed = Failure("StepExecutionError", text, "ValueError", ask.key)
            row.ok, row.body, row.completed_at = False, failure.dump(failed), now
            attempt.writer.record(ask, row)
            return
        secrets = [field.key for field in form.fields if field.secret] if form else []
        attempt.codec.demand_secrecy(secrets, "form")
        if timeout is not None:
            row.due_at = ask.due = now + int(timeout * 1e6)
        _Question(attempt, ask)
        attempt.waiting.add(ask, row, wait=self._wait(row, now))

    def _told(self, ask: Ask, data: Any) -> Any:
        """Return what people are told: of a dict also where they can answer, if there is a page."""
        attempt = self._attempt
        url = attempt.runner.approval_url
        if url is None or not isinstance(data, Mapping):
            return data
        given = cast("Mapping[str, Any]", data)
        page = f"{url}/approve/{attempt.execution.root_id}/{quote(ask.key, safe='')}"
        return {**given, APPROVAL_URL: page}

    def _wait(self, row: Row, now: int) -> Wait:
        execution = self._attempt.execution
        return Wait(
            execution.root_id,
            execution.id,
            row.seq,
            Kind.SUSPEND,
            row.key or "",
            now,
            body=row.info,
            due_at=row.due_at,
        )

    def _take_up(self, ask: Ask, row: Row) -> None:
        """Wait on: the row is open, and its answer may be there."""
        attempt = self._attempt
        waiting = attempt.waiting
        ask.seq, ask.due, ask.opened = row.seq, row.due_at, row
        question = _Question(attempt, ask)
        waiting.take(attempt.work.inbox)
        if question.is_over:
            return
        if attempt.execution.retry_count:  # it had failed, and its waits were over
            waiting.store(attempt.writer.open(), self._wait(row, row.started_at))
        waiting.add(ask, None)

    async def resume(self, key: str, answer: Mapping[str, Any]) -> None:
        """Answer a suspension of another execution (see `Steps.resume`).

        `answer` has `key`, `execution_id`, `workflow_id` and `data`. However often it is sent, it
        is the same answer.
        """
        attempt = self._attempt
        data = attempt.codec.encode(answer["data"], what="data").body
        contents = attempt.codec.take_contents()

        async def live(ask: Ask) -> None:
            attempt.look(ask)
            ask.seq = ask.row.seq if ask.row is not None else 0
            now = attempt.clock.now()
            sent = Answer(
                ids.derived_uuid(attempt.identity, f"{ask.key}/answer"),
                answer["execution_id"],
                answer["key"],
                data,
                now,
                answer["workflow_id"],
            )
            failed: Failure | None = None
            attempt.bodies[ask] = attempt.clock.monotonic()
            try:
                await attempt.backend.keep_blobs(contents, all=True)
                await attempt.backend.resume(sent)
            except (ConflictError, ExecutionNotFoundError, UsageError) as error:
                text = f"Step {ask.key!r} could not resume: {error}"
                failed = Failure("StepExecutionError", text, type(error).__name__, ask.key)
            finally:
                attempt.bodies.pop(ask, None)
            self._record(ask, failed)

        await once(attempt, Kind.RESUME, key, live)

    def _record(self, ask: Ask, failed: Failure | None) -> None:
        attempt = self._attempt
        now = attempt.clock.now()
        row = attempt.writer.new_row(ask, now)
        row.ok, row.completed_at = failed is None, now
        row.body = "null" if failed is None else failure.dump(failed)
        attempt.writer.record(ask, row)
        if attempt.draining:
            attempt.runner.drained(attempt)


class _Question:
    """An open suspension: it takes its answer, or the end of its time, whichever was first."""

    def __init__(self, attempt: Attempt, ask: Ask) -> None:
        self._attempt = attempt
        self._ask = ask
        ask.on_item = self.take
        ask.on_due = self.look
        attempt.waiting.expect(ask, [suspension.ref(ask.key)])

    @property
    def is_over(self) -> bool:
        """Say whether its row has closed."""
        return self._ask.opened is None

    def take(self, item: InboxItem) -> None:
        """Close the row with what came."""
        ask, row = self._ask, self._ask.opened
        if row is None:
            return
        held = suspension.load(item.body)
        if not held.in_time:
            self._close(suspension.dump_timeout(ask.key, row.due_at), ok=False)
            return
        if item.id == suspension.early_id(ask.key):
            whose = f"{ask.key!r} of execution {self._attempt.execution_id!r}"
            try:
                held = suspension.Held(
                    held.id, held.at, suspension.filled(row.info, held.data, whose)
                )
            except FormError as error:
                log.warning("an answer that came early is dropped: %s", error)
                self._attempt.waiting.remove(self._attempt.writer.open(), [item.id])
                return
        execution = self._attempt.execution
        self._close(suspension.envelope(row, ask.key, execution, held), ok=True)

    def _close(self, body: str, *, ok: bool) -> None:
        ask = self._ask
        gone = [suspension.item_id(ask.seq), suspension.early_id(ask.key)]
        type_ = marks.type_of(body) if ok else None
        self._attempt.waiting.answer(ask, body, type_, ok=ok, consumed=gone)

    def look(self) -> None:
        """The time is over, unless an answer came before it: the store knows."""
        self._attempt.waiting.hold(self._ask)
        self._attempt.runner.spawn(self._look())

    async def _look(self) -> None:
        attempt, ask = self._attempt, self._ask
        root_id = attempt.execution.root_id
        try:
            if await attempt.backend.expire(root_id, attempt.execution_id, ask.seq):
                found = await attempt.backend.inboxes([(root_id, attempt.execution_id)])
                attempt.waiting.take(found)
        finally:
            if not (attempt.sealed or attempt.ended or ask.is_over or self.is_over):
                attempt.waiting.again(ask, LOOK_AGAIN_SECONDS)
