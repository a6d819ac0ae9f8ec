"""What an execution tells of itself, derived from its journal."""

import pytest

from polos.core import lifecycle
from polos.core.model import Execution, Row, Start, Status
from polos.worker.starting import execution_of
from tests.store.records import T0, done_row, new_start


def running() -> Execution:
    record = execution_of(Start("e", "e", "w", "w", "{}", None, 1))
    record.started_at, record.status = 2, Status.RUNNING
    return record


def done(seq: int, started_at: int, completed_at: int) -> Row:
    row = Row(seq, "run", f"s{seq}", 0, turn=seq, ok=True, body=str(seq))
    row.started_at, row.completed_at = started_at, completed_at
    return row


def told(rows: list[Row]) -> list[str]:
    events = lifecycle.derive({}, [running()], {"e": rows})
    return [f"{event.type} {_key(event.data)}".strip() for event in events[1:]]


def _key(data: str) -> str:
    return data.partition('"step_key":"')[2].partition('"')[0]


def test_steps_one_after_the_other_are_told_without_comparing_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(one: Row, other: object) -> bool:
        raise AssertionError(f"{one} is compared with {other}: that takes the square of a journal")

    monkeypatch.setattr(Row, "__eq__", refuse)
    rows = [done(seq, 10 * seq, 10 * seq + 5) for seq in range(1, 500)]
    wanted = [(f"step_start s{seq}", f"step_finish s{seq}") for seq in range(1, 500)]
    assert told(rows) == [each for pair in wanted for each in pair]


def test_a_step_starts_before_it_ends_whatever_the_clocks_say() -> None:
    # The second began behind the end of both by the clock of another machine.
    rows = [done(1, 10, 40), done(2, 50, 20), done(3, 45, 60)]
    assert told(rows) == [
        *("step_start s1", "step_finish s1", "step_start s2", "step_finish s2"),
        *("step_start s3", "step_finish s3"),
    ]


def record(status: Status, started_at: int | None) -> Execution:
    execution = execution_of(new_start("a"))
    execution.status, execution.started_at = status, started_at
    return execution


def types(cursor: lifecycle.Cursor, execution: Execution) -> list[str | None]:
    found = lifecycle.derive(cursor, [execution], {"a": [done_row(1, "one")]})
    return [event.type for event in found]


def test_rows_that_were_read_later_than_the_record_wait_for_the_start() -> None:
    cursor: lifecycle.Cursor = {}
    assert types(cursor, record(Status.QUEUED, None)) == []
    assert types(cursor, record(Status.RUNNING, T0)) == [
        "workflow_start",
        "step_start",
        "step_finish",
    ]


def test_one_that_was_ended_before_it_began_tells_that() -> None:
    found = lifecycle.derive({}, [record(Status.CANCELLED, None)], {"a": []})
    assert [event.type for event in found] == ["workflow_cancelled"]
