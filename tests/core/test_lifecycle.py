"""What an execution tells, derived from its record and journal."""

from polos.core import lifecycle
from polos.core.model import Execution, Status
from polos.worker.starting import execution_of
from tests.store.records import T0, done_row, new_start


def record(status: Status, started_at: int | None) -> Execution:
    execution = execution_of(new_start("a"))
    execution.status, execution.started_at = status, started_at
    return execution


def told(cursor: lifecycle.Cursor, execution: Execution) -> list[str | None]:
    found = lifecycle.derive(cursor, [execution], {"a": [done_row(1, "one")]})
    return [event.type for event in found]


def test_rows_that_were_read_later_than_the_record_wait_for_the_start() -> None:
    cursor: lifecycle.Cursor = {}
    assert told(cursor, record(Status.QUEUED, None)) == []
    assert told(cursor, record(Status.RUNNING, T0)) == [
        "workflow_start",
        "step_start",
        "step_finish",
    ]


def test_one_that_was_ended_before_it_began_tells_that() -> None:
    found = lifecycle.derive({}, [record(Status.CANCELLED, None)], {"a": []})
    assert [event.type for event in found] == ["workflow_cancelled"]
