"""Every statement that runs often finds its rows by an index, however large the database is."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from polos.core.model import Row, StateEntry, Status
from polos.store.lining import Lining
from polos.store.protocol import VERSION_MAX
from polos.store.sqlite import batch, queries, retention, verbs
from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import SqliteStore
from tests.store.records import (
    T0,
    change,
    child_start,
    done_row,
    ending,
    new_start,
    owned_start,
    worker,
    write_all,
)

# Small by nature: the workers that live and their code versions, the ids in an argument, the tree
# of one execution.
SMALL = re.compile(r"SCAN (worker|w|v|tree|t|j|m|json_each|CONSTANT ROW|\d+ CONSTANT ROWS)\b")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(Location(f"sqlite:///{tmp_path}/polos.db"))
    await store.open()
    await store.register_worker(worker("w1"))
    for n in range(5):
        await write_all(store, owned_start(f"{n}"), new_start(f"{n}q"))
        children = [child_start(f"{n}c", f"{n}", f"{n}")]
        await write_all(store, change(f"{n}", 1, done_row(1, "x"), starts=children))
    await write_all(store, change("1", 1, status=Status.WAITING, wake_at=T0))
    yield store
    await store.close()


class Spy:
    """Collects the statements that a connection executes, with their bindings."""

    def __init__(self, store: SqliteStore) -> None:
        self.connection: apsw.Connection = store._writer
        self.seen: list[tuple[str, Any]] = []

    def __enter__(self) -> "Spy":
        self.connection.exec_trace = self._note
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.exec_trace = None

    def _note(self, cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        self.seen.append((sql, bindings))
        return True

    def lines(self) -> list[str]:
        """Return the lines of the plans of what was executed, each with its statement."""
        found: list[str] = []
        for sql, bindings in self.seen:
            if not sql.lstrip().startswith(("SELECT", "UPDATE", "INSERT", "DELETE", "WITH")):
                continue
            plan = self.connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)
            found += [f"{line}  in  {sql}" for *_, line in plan.fetchall()]
        assert self.seen
        return found

    def scans(self) -> list[str]:
        """Return the lines of the plans that read a whole table."""
        return [line for line in self.lines() if line.startswith("SCAN") and not SMALL.match(line)]


READS: dict[str, Any] = {
    "execution": lambda c: queries.execution(c, "1"),
    "steps": lambda c: queries.steps(c, "1", "1"),
    "last_seq": lambda c: queries.last_seq(c, "1", "1"),
    "states": lambda c: queries.states(c, "1", "1"),
    "latest_states": lambda c: queries.states_up_to(c, "1", "1", VERSION_MAX),
    "inbox": lambda c: queries.inbox(c, "1", "1"),
    "claimable": lambda c: queries.claimable(c, "w1", ["wf"], False, T0, T0, 10),
    "claimable of the queue": lambda c: queries.claimable(c, "w1", ["wf"], True, T0, T0, 10),
    "to_cancel": lambda c: queries.to_cancel(c, "w1"),
    "overdue_cancel": lambda c: queries.overdue_cancel(c, T0),
    "next_wake": lambda c: queries.next_wake(c, "w1", ["wf"]),
    "to_sort_out": lambda c: verbs.to_sort_out(c, T0 + 1),
    "live_workers": queries.live_workers,
    "finished": lambda c: queries.finished(c, ["1", "2"]),
    "children": lambda c: queries.listing(c, {"root_id": "1", "parent_id": "1"}, -1),
    "due": lambda c: retention.due(c, "wf", T0, ["failed"], (T0, "1"), 10),
    "finished_workflows": retention.finished_workflows,
    "weigh": lambda c: retention.weigh(c, ["1", "2"]),
    "list of a workflow": lambda c: queries.listing(c, {"workflow_id": "wf"}, 50),
}


@pytest.mark.parametrize("name", list(READS))
async def test_no_read_scans_a_table(store: SqliteStore, name: str) -> None:
    with Spy(store) as spy:
        READS[name](spy.connection)
    assert spy.scans() == []


async def test_a_list_of_all_stops_at_its_limit(store: SqliteStore) -> None:
    for filters in ({}, {"before": "4"}):
        with Spy(store) as spy:
            queries.listing(spy.connection, filters, 50)
        ((sql, bindings),) = spy.seen
        plan = [r[3] for r in store._writer.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        # In the order of an index: nothing is sorted, so the limit ends it.
        assert len(plan) == 1
        assert "USING INDEX" in plan[0]


LINING = Lining()
WRITES: dict[str, Any] = {
    "start": lambda c: batch.write(c, [new_start("n", state="{}", idempotency_key="k")], LINING),
    "a lone row": lambda c: batch.write_lone_row(c, change("0", 1, done_row(2, "y"))),
    "rows": lambda c: batch.write(c, [change("0", 1, done_row(2, "y")), change("2", 1)], LINING),
    "everything": lambda c: batch.write(
        c,
        [
            change(
                "0",
                1,
                Row(3, "run", "z", 0),
                states=[StateEntry(1, "z", T0, "[]")],
                consumed=["x"],
                forget=[9],
                cancel_delivered=True,
                retry_count=1,
                status=Status.RUNNING,
            )
        ],
        LINING,
    ),
    "waiting": lambda c: batch.write(c, [change("0", 1, status=Status.WAITING)], LINING),
    "handed back": lambda c: batch.write(c, [change("0", 1, status=Status.QUEUED)], LINING),
    "an ending": lambda c: batch.write(
        c, [change("0c", 1, root_id="0", ending=ending(parent_id="0"))], LINING
    ),
    "a failure": lambda c: batch.write(
        c, [change("0", 1, ending=ending(Status.FAILED, "{}"))], LINING
    ),
    "claim": lambda c: verbs.claim(c, "w1", [("0q", "0q", 0), ("1", "1", 1)], {"1": (1, 1)}, T0),
    "cancel": lambda c: verbs.cancel(c, "2", T0, LINING),
    "force_cancel": lambda c: verbs.force_cancel(c, T0 + 9, T0 + 9, LINING),
    "block": lambda c: verbs.block(c, "3", 1, "no"),
    "retry": lambda c: verbs.retry(c, "3", T0),
    "register_worker": lambda c: verbs.register_worker(c, worker("w9")),
    "stop_worker": lambda c: verbs.stop_worker(c, "w1", T0, crashed=True, crashes_max=10),
    "sort_out": lambda c: verbs.sort_out(c, T0 + 1),
    "prune": lambda c: retention.prune(c, ["4"], T0 + 1, 5_000),
    "prune a part": lambda c: retention.prune(c, ["4"], T0 + 1, 1),
}


@pytest.mark.parametrize(
    "name",
    list(WRITES),
)
async def test_no_write_scans_a_table(store: SqliteStore, name: str) -> None:
    if name == "force_cancel":
        await store.cancel("2", T0)
    if name.startswith("prune"):
        more = child_start("4d", "4", "4")
        await write_all(store, change("4", 1, done_row(2, "y"), starts=[more]))
        for id in ("4c", "4d", "4"):
            await write_all(store, change(id, 1, root_id="4", ending=ending()))
    if name == "retry":
        await write_all(
            store, change("3", 1, ending=ending(Status.FAILED, '{"type":"E","message":"m"}'))
        )
    with Spy(store) as spy:
        WRITES[name](spy.connection)
    assert spy.scans() == []


OPEN_WORK = {
    name: each
    for name, each in (READS | WRITES).items()
    if name.startswith("claimable")
    or name in {"next_wake", "to_cancel", "overdue_cancel", "force_cancel", "stop_worker"}
    or name in {"to_sort_out", "sort_out"}
}


@pytest.mark.parametrize("name", list(OPEN_WORK))
async def test_what_looks_for_open_work_does_not_pass_what_has_ended(
    store: SqliteStore, name: str
) -> None:
    with Spy(store) as spy:
        OPEN_WORK[name](spy.connection)
    by_index = re.compile(
        r"SEARCH execution USING (COVERING )?INDEX execution_(open|to_cancel|blocked|timed|by_id)"
    )
    of_executions = [
        line
        for line in spy.lines()
        if re.match(r"(SEARCH|SCAN) execution", line) and "PRIMARY KEY" not in line
    ]
    assert of_executions
    assert [line for line in of_executions if not by_index.match(line)] == []


async def test_what_is_due_is_found_by_age_alone(store: SqliteStore) -> None:
    """No step of the plan reads more than the trees that it returns."""
    with Spy(store) as spy:
        retention.due(spy.connection, "wf", T0, None, None, 10)
    plan = [line.partition("  in  ")[0] for line in spy.lines()]
    assert (
        "SEARCH e USING INDEX execution_finished (workflow_id=? AND (completed_at,root_id)>(?,?) "
        "AND completed_at<?)"
    ) in plan
    assert "SEARCH o USING PRIMARY KEY (root_id=?)" in plan
    assert not any("TEMP B-TREE" in line for line in plan), plan  # in the order of the index
