"""The events of a tree of executions, derived from its journals when somebody wants to read them.

Nothing is written while code runs. A reader's position in the journals is the cursor; what lies
behind it becomes events of the tree's topic, in journal order within an execution and by time
between executions.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from polos.core import failure, ids
from polos.core.events import workflow_topic
from polos.core.model import HIDDEN_KINDS, TERMINAL, Event, Execution, Kind, Row, Status

TYPE = "workflow"
"""Begins the names of what an execution tells of itself (`workflow_start`)."""
_ENDS = {
    Status.COMPLETED: "finish",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
}
_PARENTS = frozenset(
    {Kind.INVOKE, Kind.INVOKE_AND_WAIT, Kind.BATCH_INVOKE, Kind.BATCH_INVOKE_AND_WAIT}
)
_RETRIES_MAX = 1_000_000
_NEVER = -1
TERMINAL_TYPES = frozenset(f"{TYPE}_{each}" for each in _ENDS.values())


@dataclass(slots=True)
class _Mark:
    """How far one execution was read."""

    seq: int = 0
    """All rows up to this one are closed and were read."""
    turn: int = 0
    latest: int = 0
    """The last moment that was read."""
    run: int = 0
    """Of which run of its code it was read (`_run`)."""
    began: bool = False
    ended: bool = False
    open: list[int] = field(default_factory=list[int])
    """Rows (by seq) whose beginning was read, and their end not yet."""

    def dump(self) -> list[object]:
        flags = int(self.began) + 2 * int(self.ended)
        return [self.seq, self.turn, self.latest, self.run, flags, self.open]


Cursor = dict[str, _Mark]


def load(text: str | None) -> Cursor:
    """Read a cursor as it is stored."""
    found: Cursor = {}
    for id_, (seq, turn, latest, run, flags, open_) in json.loads(text or "{}").items():
        found[id_] = _Mark(seq, turn, latest, run, bool(flags & 1), bool(flags & 2), open_)
    return found


def dump(cursor: Cursor) -> str:
    """Return a cursor as it is stored."""
    marks = {id_: mark.dump() for id_, mark in cursor.items()}
    return json.dumps(marks, separators=(",", ":"))


def wanted(cursor: Cursor, executions: Sequence[Execution]) -> dict[str, int]:
    """Return which journals have to be read, by execution, and after which row."""
    found: dict[str, int] = {}
    for record in executions:
        mark = cursor.get(record.id)
        if mark is None or mark.run != _run(record):
            found[record.id] = 0
        elif not mark.ended:
            found[record.id] = mark.seq
    return found


def standing(record: Execution) -> tuple[str, str, bool, int, int]:
    """Return how far an execution is, as its record says it."""
    began = record.started_at is not None
    return (record.id, str(record.status), began, record.generation, record.retry_count)


def has_children(rows: Sequence[Row]) -> bool:
    """Say whether rows tell of children of their execution."""
    return any(row.kind in _PARENTS for row in rows)


def derive(
    cursor: Cursor, executions: Sequence[Execution], journals: Mapping[str, Sequence[Row]]
) -> list[Event]:
    """Return what is new, in order, and move the cursor behind it.

    `journals` are the rows that `wanted` asked for, read after the executions.
    """
    found: list[tuple[int, str, int, Event]] = []
    for record in executions:
        if record.id in journals:
            told = _Telling(record, cursor.setdefault(record.id, _Mark())).tell(journals[record.id])
            reached = 0
            for n, event in enumerate(told):
                reached = max(reached, event.at)  # never before what its journal has before it
                found.append((reached, record.id, n, event))
    found.sort(key=lambda each: each[:3])
    return [event for _, _, _, event in found]


class _Telling:
    """Turns what is new of one execution into events."""

    def __init__(self, record: Execution, mark: _Mark) -> None:
        self._record = record
        self._mark = mark
        self._events: list[Event] = []
        self._again = mark.run != _run(record)
        self._topic = workflow_topic(record.root_workflow_id, record.root_id)
        self._meta = json.dumps({"execution_id": record.id, "workflow_id": record.workflow_id})

    def tell(self, rows: Sequence[Row]) -> list[Event]:
        record, mark = self._record, self._mark
        if not mark.began and record.started_at is None and record.status not in TERMINAL:
            return []  # its rows may have been read later than its record: the start comes first
        before = mark.latest
        if self._again:
            if mark.run // _RETRIES_MAX != record.generation:
                before = _NEVER  # nothing of this journal was read, whatever the clocks say
            mark.open, mark.seq, mark.turn = [], 0, 0
            mark.ended, mark.run = False, _run(record)
        if not mark.began and record.started_at is not None:
            mark.began = True
            body = f'{{"payload":{record.payload or "null"},"_metadata":{self._meta}}}'
            self._add("start", 0, f"{TYPE}_start", body, record.started_at)
        steps = [row for row in rows if row.kind not in HIDDEN_KINDS]
        starts = deque(row for row in steps if self._is_new_start(row, before))
        untold = {row.seq for row in starts}
        for row in sorted((r for r in steps if r.ok is not None), key=_by_turn):
            if not self._is_new_end(row, before):
                continue
            done = row.completed_at or row.started_at
            while starts and (starts[0].started_at <= done or row.seq in untold):
                untold.discard(starts[0].seq)
                self._begin(starts.popleft())
            self._end(row, done)
        for row in starts:
            self._begin(row)
        self._advance(rows)
        if record.status in TERMINAL and not mark.ended:
            mark.ended = True
            self._finish(record.completed_at or mark.latest)
        return self._events

    def _is_new_end(self, row: Row, before: int) -> bool:
        if self._again:  # turns were cut off the journal, and are given a second time
            return (row.completed_at or 0) > before
        return (row.turn or 0) > self._mark.turn

    def _is_new_start(self, row: Row, before: int) -> bool:
        if row.seq in self._mark.open:
            return False
        if row.ok is not None:
            return self._is_new_end(row, before)
        return not self._again or row.started_at > before

    def _advance(self, rows: Sequence[Row]) -> None:
        mark = self._mark
        for row in rows:
            if row.ok is not None:
                mark.turn = max(mark.turn, row.turn or 0)
            if row.seq == mark.seq + 1 and row.ok is not None:
                mark.seq = row.seq
        closed = {row.seq for row in rows if row.ok is not None}
        mark.open = [seq for seq in mark.open if seq not in closed]

    def _begin(self, row: Row) -> None:
        self._mark.open.append(row.seq)
        if row.kind == Kind.SUSPEND:
            data = row.info or "{}"
            self._add("suspend", row.seq, f"suspend_{row.key}", data, row.started_at)
        elif not _is_message(row):
            self._add("open", row.seq, "step_start", self._step(row, ""), row.started_at)

    def _end(self, row: Row, done: int) -> None:
        if _is_message(row):
            told = json.loads(row.info or "{}")
            data = json.dumps(told.get("data"))
            self._add("publish", row.seq, told.get("event_type"), data, done)
        elif row.kind == Kind.SUSPEND and row.ok:
            answer = json.loads(row.body or "{}")
            data = json.dumps(answer.get("data"))
            self._add("resume", row.seq, f"resume_{row.key}", data, done)
        elif row.ok:
            self._add("close", row.seq, "step_finish", self._step(row, _result(row)), done)
        else:
            error = f'"error":{json.dumps(failure.text(row.body))},'
            self._add("close", row.seq, "step_finish", self._step(row, error), done)

    def _finish(self, at: int) -> None:
        record = self._record
        name = f"{TYPE}_{_ENDS[record.status]}"
        if record.status is Status.COMPLETED:
            what = f'"result":{record.result or "null"},'
        elif record.status is Status.FAILED:
            what = f'"error":{json.dumps(failure.text(record.error))},'
        else:
            what = ""
        self._add("end", 0, name, f'{{{what}"_metadata":{self._meta}}}', at)

    def _step(self, row: Row, what: str) -> str:
        key, kind = json.dumps(row.key), json.dumps(row.kind)
        return f'{{"step_key":{key},"step_type":{kind},{what}"_metadata":{self._meta}}}'

    def _add(self, what: str, seq: int, type_: str | None, data: str, at: int) -> None:
        record = self._record
        id_ = ids.derived_uuid(record.id, f"{what}\n{seq}\n{_run(record)}")
        self._mark.latest = max(self._mark.latest, at)
        event = Event(self._topic, id_, type_, data, at)
        event.root_id, event.execution_id = record.root_id, record.id
        self._events.append(event)


def _run(record: Execution) -> int:
    """Number the runs of an execution's code between which its journal was cut."""
    return record.generation * _RETRIES_MAX + record.retry_count


def _by_turn(row: Row) -> tuple[int, int]:
    return (row.turn or 0, row.seq)


def _is_message(row: Row) -> bool:
    """Say whether the row is an event of this very topic."""
    return row.kind == Kind.PUBLISH and json.loads(row.info or "{}").get("topic") is None


def _result(row: Row) -> str:
    return f'"result":{row.body or "null"},'
