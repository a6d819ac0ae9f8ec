"""The other verbs of `ctx.step`: values, timers and children."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polos.core import failure, ids, where
from polos.core.model import Failure, InboxItem, Kind, Start, Status
from polos.errors import StateTooLargeError, StepExecutionError
from polos.worker import bodies, keyed
from polos.worker.asks import Ask
from polos.worker.once import once
from polos.worker.starting import in_memory
from polos.workflow.port import Child

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


async def value(attempt: Attempt, kind: Kind, key: str) -> Any:
    """Return a recorded uuid, time or random number."""
    ask = attempt.ask(kind, key)
    try:
        if await attempt.recorded(ask):
            return bodies.result(attempt, ask)
        pump = attempt.pump
        held = pump.replaying or pump.interrupts
        if held or attempt.parked or attempt.parking or attempt.draining:
            await attempt.go_live(ask)
        attempt.look(ask)
        now = attempt.clock.now()
        if kind is Kind.NOW:
            ask.value = now // 1000
        elif kind is Kind.UUID:
            ask.value = ids.derived_uuid(attempt.identity, ask.key)
        else:
            ask.value = ids.derived_random(attempt.identity, ask.key)
        row = attempt.writer.new_row(ask, now)
        row.ok, row.body, row.completed_at = True, json.dumps(ask.value), now
        attempt.writer.ride(ask, row)
        await attempt.settled(ask)
        return bodies.result(attempt, ask)
    finally:
        attempt.close(ask)


async def wait_until(attempt: Attempt, kind: Kind, key: str, due: int | None, fault: str) -> None:
    """Wait for a moment (microseconds); without one the step is recorded as failed by `fault`."""

    def live(ask: Ask) -> None:
        row = ask.row
        if row is not None:
            ask.seq, ask.due = row.seq, row.due_at
            attempt.waiting.add(ask, None)
            return
        attempt.look(ask)
        now = attempt.clock.now()
        opened = attempt.writer.new_row(ask, now)
        if due is None:
            failed = Failure("StepExecutionError", fault, "ValueError", ask.key)
            opened.ok, opened.body, opened.completed_at = False, failure.dump(failed), now
            attempt.writer.record(ask, opened)
        else:
            opened.due_at = ask.due = due if kind is Kind.WAIT_UNTIL else now + due
            attempt.waiting.add(ask, opened)

    await once(attempt, kind, key, live)


async def invoke(attempt: Attempt, kind: Kind, key: str, children: Sequence[Child]) -> list[Any]:
    """Start children without waiting; returns one dict of handle facts for each."""

    def live(ask: Ask) -> None:
        attempt.look(ask)
        now = attempt.clock.now()
        starts = [_start(attempt, ask, child, now + n) for n, child in enumerate(children)]
        row = attempt.writer.new_row(ask, now)
        body = [_facts(attempt, start) for start in starts]
        row.ok, row.body, row.completed_at = True, json.dumps(body), now
        batch = attempt.writer.open()
        batch.starts = [*batch.starts, *starts]
        attempt.writer.record(ask, row)

    return await once(attempt, kind, key, live)


async def invoke_and_wait(attempt: Attempt, kind: Kind, key: str, children: Sequence[Child]) -> Any:
    """Start children and wait for their ends.

    Returns the result of a single child, and raises if it failed; for a batch it returns a list of
    dicts {workflow_id, success, result, type} or {workflow_id, success, error}, in order.
    """

    async def live(ask: Ask) -> None:
        row = ask.row
        if row is not None:
            ask.seq = row.seq
            _Join(attempt, ask, json.loads(row.info or "[]"))
            attempt.waiting.add(ask, None)
            attempt.waiting.take(attempt.work.inbox)
            return
        await keyed.check_children(attempt, ask.key, children)
        attempt.look(ask)
        now = attempt.clock.now()
        starts = [_start(attempt, ask, child, now + n) for n, child in enumerate(children)]
        for start in starts:
            start.awaited = True
        started = [{"id": s.id, "workflow_id": s.workflow_id} for s in starts]
        opened = attempt.writer.new_row(ask, now)
        opened.info = json.dumps(started)
        _Join(attempt, ask, started)
        attempt.waiting.add(ask, opened, starts)

    return await once(attempt, kind, key, live)


class _Join:
    """Collects the ends of an ask's children, and answers it with the last."""

    def __init__(self, attempt: Attempt, ask: Ask, started: list[dict[str, str]]) -> None:
        self._attempt = attempt
        self._ask = ask
        self._started = started
        self._ids = {each["id"] for each in started}
        self._ends: dict[str, InboxItem] = {}
        ask.on_item = self.take
        attempt.waiting.expect(ask, self._ids)

    def take(self, item: InboxItem) -> None:
        """Note the end of a child; items of others are left alone."""
        if item.ref not in self._ids or item.ref in self._ends:
            return
        self._ends[item.ref] = item
        self._ask.seen = len(self._ends)
        if len(self._ends) < len(self._ids):
            return
        consumed = [end.id for end in self._ends.values()]
        if self._ask.kind == Kind.INVOKE_AND_WAIT:
            ok, body, type_ = _single(self._ask, item)
            self._attempt.waiting.answer(self._ask, body, type_, ok=ok, consumed=consumed)
        else:
            body = ",".join(_outcome(each, self._ends[each["id"]]) for each in self._started)
            self._attempt.waiting.answer(self._ask, f"[{body}]", None, ok=True, consumed=consumed)


def _single(ask: Ask, item: InboxItem) -> tuple[bool, str | None, str | None]:
    if item.status is Status.COMPLETED:
        return True, item.body, item.type
    error = failure.load(item.body or "{}")
    failed = Failure("StepExecutionError", error.message, error.type, ask.key)
    return False, failure.dump(failed), None


def _outcome(child: dict[str, str], item: InboxItem) -> str:
    workflow_id, type_ = json.dumps(child["workflow_id"]), json.dumps(item.type)
    if item.status is Status.COMPLETED:
        result = item.body or "null"
        return f'{{"workflow_id":{workflow_id},"success":true,"result":{result},"type":{type_}}}'
    error = json.dumps(failure.text(item.body))
    return f'{{"workflow_id":{workflow_id},"success":false,"error":{error}}}'


def _start(attempt: Attempt, ask: Ask, child: Child, moment: int) -> Start:
    parent = attempt.execution
    keyed.check_given(ask.key, child)
    try:
        start = attempt.runner.new_start(
            child.workflow,
            child.payload,
            child.initial_state,
            moment=moment,
            root_id=parent.root_id,
            root_workflow_id=parent.root_workflow_id,
        )
    except StateTooLargeError:
        raise
    except ValueError as error:  # a payload or state that does not fit: nothing is stored
        raise StepExecutionError(
            f"Step {ask.key!r} cannot start {child.workflow.id!r}: {error}", step_key=ask.key
        ) from error
    in_memory(start.contents)
    start.parent_id = parent.id
    start.parent_key = ask.key
    start.session_id = parent.session_id
    start.user_id = parent.user_id
    start.deployment_id = parent.deployment_id
    start.queue_name = child.queue_name or start.queue_name
    start.concurrency_key = child.concurrency_key
    start.run_timeout_seconds = child.run_timeout_seconds or start.run_timeout_seconds
    where.tag(start, child.tags)
    return start


def _facts(attempt: Attempt, start: Start) -> dict[str, Any]:
    return {
        "id": start.id,
        "workflow_id": start.workflow_id,
        "created_at": start.created_at,
        "parent_execution_id": start.parent_id,
        "root_workflow_id": start.root_workflow_id,
        "root_execution_id": start.root_id,
        "session_id": start.session_id,
        "user_id": start.user_id,
        "step_key": start.parent_key,
    }
