"""Long histories: the bound on an execution's journal, and going on as a new run in place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from polos.core import delta
from polos.core.codec import Encoded
from polos.core.content import Content
from polos.core.events import workflow_topic
from polos.core.model import Kind, Status
from polos.core.work import Renewal
from polos.errors import HistoryTooLongError, InvalidStateError, UsageError
from polos.worker.asks import Ask
from polos.worker.starting import in_memory
from polos.workflow import payload as payloads

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

log = logging.getLogger("polos.worker")


class ContinueAsNew(BaseException):
    """Leaves the code of a run: the execution goes on with the next one."""

    def __init__(
        self, payload: Encoded, fields: delta.Fields | None, contents: Sequence[Content] = ()
    ) -> None:
        super().__init__("the execution continues as new; let this pass")
        self.payload = payload
        self.contents = contents
        self.fields = fields
        """The state that the next run begins with; None: as it is."""


def history_max(attempt: Attempt) -> int:
    """Return how many rows the journal of the execution may have."""
    return attempt.workflow.max_history or attempt.runner.history_max


def first_mark(attempt: Attempt) -> int:
    """Return at how many rows there is something to say."""
    limit = history_max(attempt)
    return limit // 2 if attempt.writer.seq < limit // 2 else limit


def check(attempt: Attempt, ask: Ask) -> None:
    """Warn about a journal that is half full; fail the execution at the bound."""
    limit, rows = history_max(attempt), attempt.writer.seq
    if ask.kind == Kind.COMPENSATE:  # what was done is undone all the same
        return
    name = f"execution {attempt.execution_id} of {attempt.workflow.id!r}"
    if rows < limit:
        attempt.history_mark = limit
        log.warning(
            "%s has a journal of %d rows; at %d it fails: end this run with ctx.continue_as_new()",
            name,
            rows,
            limit,
        )
        return
    attempt.fatal = HistoryTooLongError(
        f"{name} has reached {limit} rows of journal before step {ask.key!r}; go on with an empty "
        "one by ctx.continue_as_new(payload, state=...) in time, or raise max_history"
    )
    raise attempt.fatal


def renew(attempt: Attempt, payload: Any, state: Any, *, drop_compensations: bool) -> NoReturn:
    """Check payload and state of the next run, and leave this one."""
    attempt.check_sealed()
    workflow = attempt.workflow
    left = [] if drop_compensations else attempt.saga.left()
    if left:
        raise UsageError(
            f"execution {attempt.execution_id} cannot continue as new: the next run does not know "
            f"how to undo {', '.join(map(repr, left))}; await ctx.step.compensate() if they must "
            "be undone, or pass drop_compensations=True if their effects stand"
        )
    encoded = attempt.codec.encode(payloads.prepare(workflow, payload), what="payload")
    contents = in_memory(attempt.codec.take_contents())
    fields: delta.Fields | None = None
    if state is not None:
        if workflow.schema is None:
            raise InvalidStateError(
                f"workflow {workflow.id!r} has no state, but continue_as_new was given one; "
                "declare it with @workflow(state_schema=...)"
            )
        _, fields = workflow.schema.recorded(state)
        workflow.schema.check_size(fields)
    raise ContinueAsNew(encoded, fields, contents)


def renewal_in(error: BaseException) -> ContinueAsNew | None:
    """Return the renewal that code was left with, also out of a task group."""
    if isinstance(error, ContinueAsNew):
        return error
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        found = [renewal_in(each) for each in group.exceptions]
        return None if None in found else found[0]
    return None


def end(attempt: Attempt, renewal: ContinueAsNew) -> None:
    """Write that this run is over, and what the next one begins with."""
    tracker = attempt.tracker
    batch = attempt.writer.fresh()
    record = attempt.execution
    topic = workflow_topic(record.root_workflow_id, record.root_id)
    after = Renewal(renewal.payload.body, renewal.payload.type, attempt.clock.now(), topic)
    after.contents = renewal.contents
    if tracker is not None:
        fields = tracker.fields() if renewal.fields is None else renewal.fields
        tracker.schema.check_size(fields)
        after.state, after.state_version = delta.document(fields), tracker.version + 1
        after.schema_version = tracker.schema.recorded_version
    attempt.ended = True
    batch.renewal = after
    batch.status = Status.QUEUED
    batch.wake_at = 0
    attempt.writer.send(batch)
    attempt.ending.stop_timers()
