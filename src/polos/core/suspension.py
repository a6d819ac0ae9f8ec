"""Suspensions: what is answered, by whom first, and what the code gets of it.

An answer is an inbox item of the suspended execution. `resume/{seq}` answers the open row `seq`;
`resume:{key}` came before the code suspended: it is kept as `early`, wakes nobody, and becomes an
answer like any other in the commit that opens the row. Whichever stands first holds: the time that
ran out is such an item as well, so that it and an answer exclude each other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from polos.core import failure, forms
from polos.core.model import Execution, Failure, Row, Status, Wait
from polos.errors import AlreadyResumedError, ConflictError, FormError, UsageError

ITEM = "resume"
"""The kind of such inbox items."""
EARLY = "early"
"""The kind of those that nobody asks for yet."""
DATA_OWN = frozenset({forms.FORM, "_approval_url", "_source", "_tool", "_notify"})
"""Keys of what a suspension tells that are no data of the workflow's."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True, frozen=True)
class Answer:
    """A command: what somebody answers to a suspension."""

    id: str
    """The answer's own: the same one sent twice counts once."""
    execution_id: str
    """The suspended execution, or the root of its tree."""
    key: str
    data: str
    """JSON text."""
    at: int
    workflow_id: str | None = None
    """The workflow of that execution or of its root, to be sure; None: not compared."""


@dataclass(slots=True, frozen=True)
class Accepted:
    """An answer that is stored: it holds."""

    root_id: str
    execution_id: str
    """The one that is suspended, or will be."""
    key: str
    at: int
    early: bool
    """The code has not suspended yet."""
    worker_id: str | None = None
    """Who ran the execution last."""


@dataclass(slots=True, frozen=True)
class Suspension:
    """One that is open, for those who look for something to answer."""

    wait: Wait
    workflow_id: str
    root_workflow_id: str


@dataclass(slots=True, frozen=True)
class Held:
    """An inbox item that stands for an answer, or for the end of its time."""

    id: str
    at: int
    data: str
    """JSON text: `null` where the time ran out."""
    in_time: bool = True

    def dump(self) -> str:
        """Return it as the body of an inbox item."""
        if not self.in_time:
            return json.dumps({"at": self.at, "timed_out": True})
        return f'{{"id":{json.dumps(self.id)},"at":{self.at},"data":{self.data}}}'


def load(body: str | None) -> Held:
    """Read the body of an inbox item."""
    found: dict[str, Any] = json.loads(body or "{}")
    if found.get("timed_out"):
        return Held("", found["at"], "null", in_time=False)
    return Held(found["id"], found["at"], json.dumps(found["data"]))


def item_id(seq: int) -> str:
    """Return the inbox item that answers an open row."""
    return f"{ITEM}/{seq}"


def early_id(key: str) -> str:
    """Return the inbox item that waits for the code to suspend with a key."""
    return f"{ITEM}:{key}"


ref = early_id
"""What both kinds of items are looked up by in the worker."""


def moment(at: int) -> str:
    """Return a moment as ISO 8601 text in UTC."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat()


def envelope(row: Row, key: str, execution: Execution, held: Held) -> str:
    """Return what the code gets: the event that resumed it, as JSON."""
    topic = f"workflow/{execution.root_workflow_id}/{execution.root_id}"
    facts = {
        "id": held.id,
        "sequence_id": row.seq,
        "topic": topic,
        "event_type": f"resume_{key}",
        "created_at": moment(held.at),
    }
    return f'{json.dumps(facts)[:-1]}, "data": {held.data}}}'


def timed_out(key: str, due_at: int | None) -> Failure:
    """Return the failure of a suspension that nobody answered in time."""
    text = f"Suspension {key!r} timed out: nobody answered it by {moment(due_at or 0)}"
    return Failure("WaitTimeoutError", text, None, key)


def filled(body: str | None, data: str, whose: str) -> str:
    """Return an answer as its form takes it, defaults filled in; `FormError` if it does not."""
    form = forms.of(json.loads(body or "null"))
    if form is None or not form.fields:
        return data
    return json.dumps(form.check(json.loads(data), whose))


# -- what becomes of an answer ----------------------------------------------------------------


def check_workflow(target: Execution, answer: Answer) -> None:
    """Raise `UsageError` if the answer names another workflow than the execution has."""
    known = {target.workflow_id, target.root_workflow_id}
    if answer.workflow_id is not None and answer.workflow_id not in known:
        raise UsageError(
            f"execution {target.id!r} is of workflow {target.workflow_id!r}, not of "
            f"{answer.workflow_id!r}; pass suspend_workflow_id as it is, or None"
        )


def choose(
    target: Execution, answer: Answer, waits: Sequence[tuple[Wait, str | None]]
) -> Wait | None:
    """Return the suspension that the answer is for, if there is one.

    `waits` are those that stand, each with what its execution's inbox has for it. Of several those
    count that are open; the same answer once more is for the one that has it.
    """
    own = [each for each in waits if each[0].execution_id == target.id]
    found = own or list(waits)
    if len(found) > 1:
        sent = [wait for wait, body in found if body is not None and load(body).id == answer.id]
        still = [wait for wait, body in found if body is None and not _is_late(wait, answer)]
        if not sent and len(still) > 1:
            several = ", ".join(sorted(wait.execution_id for wait in still))
            raise ConflictError(
                f"{answer.key!r} is open in several executions below {target.id!r}; name the one "
                f"that you mean: {several}"
            )
        return [*sent, *still, found[0][0]][0]
    return found[0][0] if found else None


def is_sent(answer: Answer, closed: Sequence[tuple[str, bool, str | None]]) -> bool:
    """Say whether a suspension was closed by this very answer; `closed` as for `to_keep`."""
    return any(ok and json.loads(body or "{}")["id"] == answer.id for _, ok, body in closed)


def _is_late(wait: Wait, answer: Answer) -> bool:
    return wait.due_at is not None and wait.due_at <= answer.at


def to_store(wait: Wait, answer: Answer, items: Sequence[tuple[str, str | None]]) -> Held | None:
    """Return what to store as the answer to an open suspension; None if it stands already.

    `items` are (id, body) of the execution's inbox for this row and key. Raises what refuses it.
    """
    whose = f"{answer.key!r} of execution {wait.execution_id!r}"
    for id_, body in items:
        held = load(body)
        if held.id == answer.id:
            return None
        if id_ == early_id(answer.key) and not _fits(wait, held, whose):
            continue  # it will be dropped when the code looks at it
        _refuse(whose, held)
    if wait.due_at is not None and _is_late(wait, answer):
        _refuse(whose, Held("", wait.due_at, "null", in_time=False))
    return Held(answer.id, answer.at, filled(wait.body, answer.data, whose))


def _fits(wait: Wait, held: Held, whose: str) -> bool:
    try:
        filled(wait.body, held.data, whose)
    except FormError:
        return False
    return True


def _refuse(whose: str, held: Held) -> None:
    when = moment(held.at)
    if held.in_time:
        raise AlreadyResumedError(
            f"{whose} was answered at {when}; the first answer holds", accepted_at=when
        )
    raise ConflictError(f"{whose} timed out at {when}: nobody waits for an answer any more")


def to_keep(
    target: Execution,
    answer: Answer,
    closed: Sequence[tuple[str, bool, str | None]],
    early: str | None,
) -> Held | None:
    """Return what to keep of an answer that no open suspension asks for; None if it is kept.

    `closed` has (execution, ok, body) of suspensions of this key that are over, `early` the body
    of an answer that is kept for it. Raises what refuses it.
    """
    if is_sent(answer, closed):
        return None
    over = [(id_, ok, json.loads(body or "{}")) for id_, ok, body in closed]
    for execution_id, ok, found in over:
        whose = f"{answer.key!r} of execution {execution_id!r}"
        if not ok:
            raise ConflictError(f"{whose} is over: {found['message']}")
        when = found["created_at"]
        raise AlreadyResumedError(
            f"{whose} was answered at {when}; the first answer holds", accepted_at=when
        )
    if target.status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
        raise ConflictError(
            f"execution {target.id!r} is {target.status}; only one that has not ended can be "
            f"resumed, and {answer.key!r} had no answer before that"
        )
    if early is not None:
        held = load(early)
        if held.id == answer.id:
            return None
        _refuse(f"{answer.key!r} of execution {target.id!r}", held)
    return Held(answer.id, answer.at, answer.data)


def dump_timeout(key: str, due_at: int | None) -> str:
    """Return the body of a row that closes without an answer in time."""
    return failure.dump(timed_out(key, due_at))
