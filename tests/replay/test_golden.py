"""Golden journals replay on every release; number one is the execution of JOURNAL.md."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polos.core import delta
from polos.core.model import Execution
from polos.store.sqlite import queries
from polos.store.sqlite.store import Crashed
from polos.testing import JournalFile, Simulation, replay
from polos.testing.sweep import observe
from tests.replay import trip as trips
from tests.sim.helpers import by_hand, pass_time

GOLDEN = Path(__file__).parent / "golden"
NO_TOUR = "Step execution failed after 0 retries: sold out"


def started(journal: JournalFile) -> float:
    """Return the time that code `a` took, once."""
    return json.loads(journal.states[1]["body"])["started"]


async def test_golden_0001_trip_replays_strictly() -> None:
    ran: list[str] = []
    places: list[str] = []
    trips.define(ran, places.append)
    journal = JournalFile.read(GOLDEN / "0001_trip.json")
    again = await replay(journal)
    assert (again.status, again.result, again.new_steps) == ("completed", True, [])
    assert ran == []
    assert places == ["c", NO_TOUR]
    assert again.state == {
        "legs": 1,
        "notes": ["booked", "no tour"],
        "started": started(journal),
    }


@pytest.mark.parametrize("rows", range(6))
async def test_golden_0001_trip_replays_from_every_row(rows: int) -> None:
    """What an attempt finds after each commit: the rest is run anew."""
    ran: list[str] = []
    trips.define(ran)
    whole = JournalFile.read(GOLDEN / "0001_trip.json")
    kept = whole.rows[:rows]
    version = max((row["state_version"] for row in kept), default=0)
    states = [entry for entry in whole.states if entry["version"] <= version]
    again = await replay(JournalFile(whole.execution, kept, states), answers={"ok": {"go": True}})
    assert again.status == "completed"
    assert again.state is not None
    assert again.state["notes"] == ["booked", "no tour"]
    assert again.state["legs"] == 1
    keys = {row["key"] for row in kept}
    assert set(ran) == {"book", "car", "hotel", "tour"} - keys
    if rows:
        assert again.state["started"] == started(whole)


def test_a_golden_file_reads_and_writes_the_same(tmp_path: Path) -> None:
    for path in sorted(GOLDEN.glob("*.json")):
        copy = tmp_path / path.name
        JournalFile.read(path).write(copy)
        assert copy.read_text() == path.read_text()


@dataclass
class Seen:
    """What a reader sees after a commit."""

    record: Execution
    state: dict[str, Any]
    rows: list[Any]
    waits: int
    inbox: list[str]


async def test_the_table_of_one_execution_row_by_row() -> None:
    trip = trips.define([])
    commits: list[Seen] = []
    async with by_hand() as simulation:
        assert simulation.database is not None
        connection = simulation.database.connection

        def gate(moment: str) -> None:
            found: list[Any] = connection.execute("SELECT id FROM execution").fetchall()
            if moment != "after" or not found:
                return
            id_ = str(found[0][0])
            record = queries.execution(connection, id_)
            assert record is not None
            states = queries.states(connection, id_, id_)
            fields: Any = {}
            for entry in states:
                fields = delta.apply(fields, entry.body)
            open_waits: list[Any] = connection.execute("SELECT seq FROM wait").fetchall()
            seen = Seen(
                record,
                simulation.node.plain(fields),
                queries.steps(connection, id_, id_),
                len(open_waits),
                [item.id for item in queries.inbox(connection, id_, id_)],
            )
            if not commits or seen != commits[-1]:  # housekeeping commits as well
                commits.append(seen)

        simulation.on_transaction(gate)
        handle = await trip.invoke(simulation.client, {})
        await pass_time(simulation, 1)
        await trips.answer(simulation.client, handle.id)
        await pass_time(simulation, 1)
        await handle.result()
        simulation.on_transaction(None)
    start, book, hotel, car, tour, waits, resumed, claim, end = commits

    # start: the execution row and state entry 0; a reader sees `queued`, legs 0, notes []
    assert start.record.status == "queued"
    assert start.rows == []
    assert start.state == {"legs": 0, "notes": [], "started": 0.0}

    # b: row 1 `run book`, pinned, change: notes + "booked"; state: started, notes
    (row,) = book.rows
    assert (row.seq, row.kind, row.key, row.turn, row.pinned) == (1, "run", "book", 1, True)
    assert row.change == '[["append", ["notes"], ["booked"]]]'
    assert book.record.status == "running"
    t0 = book.state["started"]
    assert t0 > 0
    assert book.state == {"legs": 0, "notes": ["booked"], "started": t0}

    # e: row 2 `run hotel`, turn 2, not pinned, state: legs 1 (c)
    *before, row = hotel.rows
    assert before == book.rows
    assert (row.seq, row.kind, row.key, row.turn, row.pinned) == (2, "run", "hotel", 2, False)
    assert row.change is None
    assert hotel.state == {"legs": 1, "notes": ["booked"], "started": t0}

    # d: row 3 `run car`, turn 3, not pinned
    *before, row = car.rows
    assert before == hotel.rows
    assert (row.seq, row.kind, row.key, row.turn, row.pinned) == (3, "run", "car", 3, False)
    assert car.state == hotel.state

    # f: row 4 `run tour`, failure, pinned
    *before, row = tour.rows
    assert before == car.rows
    assert (row.seq, row.kind, row.key, row.turn, row.pinned) == (4, "run", "tour", 4, True)
    assert (row.ok, row.change) == (False, None)
    assert NO_TOUR in row.body
    assert tour.state == hotel.state

    # h: row 5, open; the wait; state: notes + "no tour" (g); a reader sees `waiting`
    *before, row = waits.rows
    assert before == tour.rows
    assert (row.seq, row.kind, row.key, row.turn, row.ok) == (5, "suspend", "ok", None, None)
    assert (row.due_at, row.info) == (None, '{"ask":"go?"}')
    assert waits.waits == 1
    assert waits.record.status == "waiting"
    assert waits.state == {"legs": 1, "notes": ["booked", "no tour"], "started": t0}

    # resume from outside: the resumer's commit, an inbox item; a reader sees `queued`
    assert resumed.record.status == "queued"
    assert (resumed.rows, resumed.state) == (waits.rows, waits.state)
    assert (resumed.waits, resumed.inbox) == (1, ["resume/5"])

    # claimed again, in place
    assert claim.record.status == "running"
    assert claim.rows == waits.rows
    assert claim.state == waits.state

    # 5 closed with the answer, inbox item removed, pinned; rides with i: `completed`, result
    *before, row = end.rows
    assert before == tour.rows
    assert (row.seq, row.kind, row.key, row.turn, row.pinned) == (5, "suspend", "ok", 5, True)
    assert row.ok is True
    envelope = json.loads(row.body)
    assert (envelope["data"], envelope["sequence_id"]) == ({"go": True}, 5)
    assert envelope["event_type"] == "resume_ok"
    assert envelope["topic"] == f"workflow/trip/{handle.id}"
    assert (end.waits, end.inbox) == (0, [])
    assert (end.record.status, end.record.result) == ("completed", "true")
    assert end.state == waits.state


async def killed(commit: int, where: str) -> tuple[list[str], list[str], Simulation, Any]:
    """Run a trip that is killed at a commit and resumed; returns what ran in each life."""
    ran: list[str] = []
    trip = trips.define(ran)
    simulation = Simulation()
    await simulation.__aenter__()
    count = 0
    dead = asyncio.Event()

    def gate(moment: str) -> None:
        nonlocal count
        count += moment == "begin"
        if (count, moment) == (commit, where):
            dead.set()
            raise Crashed

    simulation.on_transaction(gate)
    handle = await trip.invoke(simulation.client, {})
    answering = asyncio.ensure_future(trips.answer(simulation.client, handle.id))
    async with asyncio.timeout(100):
        await dead.wait()
    answering.cancel()
    simulation.crash()
    first = list(ran)
    ran.clear()
    await simulation.restart()
    answering = asyncio.ensure_future(trips.answer(simulation.client, handle.id))
    outcome = await observe(simulation, simulation.client.get_handle(handle.id))
    await answering
    assert (outcome.status, outcome.result) == ("completed", True)
    assert outcome.state is not None
    assert outcome.state["legs"] == 1
    assert outcome.state["notes"] == ["booked", "no tour"]
    return first, list(ran), simulation, outcome


async def test_killed_between_the_end_of_the_body_of_book_and_its_commit() -> None:
    first, second, simulation, _ = await killed(2, "before")
    await simulation.__aexit__()
    assert first == ["book"]
    assert sorted(second) == ["book", "car", "hotel", "tour"]


async def test_killed_after_commit_3_before_commit_4() -> None:
    first, second, simulation, _ = await killed(3, "after")
    await simulation.__aexit__()
    assert sorted(first) == ["book", "car", "hotel"]
    assert second == ["car", "tour"]


async def test_killed_after_commit_7_five_rows_replay_in_one_read() -> None:
    first, second, simulation, outcome = await killed(7, "after")
    await simulation.__aexit__()
    assert sorted(first) == ["book", "car", "hotel", "tour"]
    assert second == []
    assert outcome.steps["ok"][0] == "completed"
