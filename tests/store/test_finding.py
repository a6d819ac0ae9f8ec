"""The index and the conditions, on every store: the same answers as a look at each execution."""

import json
import operator
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from polos.core import delta, ids, where
from polos.core.indexed import IndexEntry
from polos.core.model import Execution, StateEntry, Status
from polos.core.where import Query
from polos.engine.asking import Asking
from polos.store.protocol import Store
from tests.store.conftest import Opener
from tests.store.records import (
    T0,
    change,
    done_row,
    ending,
    new_start,
    owned_start,
    write,
    write_all,
    write_alone,
)

NUMBERS: list[Any] = [0, 1, 2.5, -3, 10**20]
TEXTS: list[Any] = ["", "a", "b", "it's", "é\x00\x01", "%_"]
VALUES: list[Any] = [None, True, False, *NUMBERS, *TEXTS]
PLACES = ("state.x", "state.y.z")
COMPARE: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def text_of(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def state_of(x: Any, z: Any) -> str:
    found: dict[str, Any] = {} if x is ... else {"x": x}
    found["y"] = {} if z is ... else {"z": z}
    return delta.document({name: text_of(value) for name, value in found.items()})


async def fill(store: Store, count: int, seed: int) -> dict[str, delta.Fields]:
    """Start executions of two workflows, of which one declares its fields; returns the states."""
    chance = random.Random(seed)
    states: dict[str, delta.Fields] = {}
    await store.declare([("wf", place) for place in PLACES], "")
    for number in range(count):
        created_at = T0 + 700 * number
        id = ids.new_id(created_at)
        workflow_id = chance.choice(["wf", "wf", "other"])
        state = state_of(*(chance.choice([..., *VALUES]) for _ in PLACES))
        states[id] = delta.split(state)
        start = owned_start(id, workflow_id=workflow_id, state=state, created_at=created_at)
        if workflow_id == "wf":
            start.index = where.entries("wf", PLACES, states[id])
        where.tag(start, {"team": chance.choice("ab")} if number % 3 else None)
        await write_all(store, start)
        if number % 4 == 0:
            await write_all(store, change(id, 1, ending=ending(body='{"r": 1}')))
    return states


def random_where(chance: random.Random) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in chance.sample(["state.x", "state.y.z", "tags.team", "status", "created_at"], 2):
        if name == "created_at":
            moment = T0 + chance.choice([0, 14_000, 14_300, 14_700, 50_000])
            op = chance.choice(["<", "<=", ">", ">=", "=", "!="])
            found[name] = (op, EPOCH + timedelta(microseconds=moment))
        elif name == "status":
            found[name] = (chance.choice(["=", "!="]), "completed")
        elif name == "tags.team":
            found[name] = chance.choice(
                ["a", ("!=", "a"), ("in", ["b"]), ("contains", "b"), ("exists", False)]
            )
        else:
            op = chance.choice(["=", "!=", "<", ">", "<=", ">=", "in", "contains", "exists"])
            value: Any = chance.choice([*NUMBERS, *TEXTS])
            if op == "in":
                value = chance.sample(VALUES, 3)
            elif op == "exists":
                value = chance.random() < 0.5
            elif op in ("=", "!="):
                value = chance.choice(VALUES)
            found[name] = (op, value)
            if chance.random() < 0.3:
                found[name] = [(op, value), ("!=", chance.choice(VALUES)), (">=", -3)]
    return found


def expected(records: list[Execution], states: dict[str, delta.Fields], given: Any) -> list[str]:
    found: list[str] = []
    for record in records:
        fits = True
        for each in where.parse(given):
            if each.is_column:
                value: Any = getattr(record, each.source)
                if each.source == "created_at":
                    fits &= COMPARE[each.op](value, each.value)
                else:
                    fits &= (value == each.value) == (each.op == "=")
            else:
                fits &= where.fits(each, where.found_in(each, record, states[record.id]))
        if fits:
            found.append(record.id)
    return found


NAMES = ("STROLL", "WALK", "FEW", "APART", "MERGED")
SIZES = {
    "as they are": (1_000, 10_000, 5_000, 20, 100_000),
    "all are rare": (2, 10_000, 5_000, 20, 100_000),
    "none is rare": (2, 3, 0, 20, 100_000),
    "none is rare, and none is looked up": (2, 3, 0, 0, 1),
    "some are rare": (3, 7, 5, 1, 10),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
async def test_the_same_as_a_look_at_each(
    store: Store, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in zip(NAMES, sizes, strict=True):
        monkeypatch.setattr(f"polos.engine.ways.{name}", size)
    states = await fill(store, 60, seed=5)
    records = await store.listing({}, 100)
    asking = Asking(store)
    chance = random.Random(sum(sizes))
    hits = noted = 0
    for _ in range(40):
        given = random_where(chance)
        wanted = expected(records, states, given)
        hits += bool(wanted)
        found, note = await asking.find({}, where.parse(given), 1000)
        assert [each.id for each in found] == wanted, given
        some, _ = await asking.find({}, where.parse(given), 3)
        assert [each.id for each in some] == wanted[:3], given
        tallies, _ = await asking.tally({}, where.parse(given), None, None)
        assert sum(each.count for each in tallies) == len(wanted), given
        mine, note = await asking.find({"workflow_id": "wf"}, where.parse(given), 1000)
        own = [each.id for each in records if each.workflow_id == "wf"]
        assert [each.id for each in mine] == [id for id in wanted if id in own], given
        status, before = chance.choice(list(Status)), chance.choice(records).id
        filters = {"workflow_id": "wf", "status": status, "before": before}
        some, _ = await asking.find(filters, where.parse(given), chance.choice([1, 4, 100]))
        fitting = [
            each.id
            for each in records
            if each.id in wanted and each.id in own and each.id < before and each.status == status
        ]
        assert [each.id for each in some] == fitting[: len(some)], (given, filters)
        assert len(some) in (1, 4, len(fitting)), (given, filters)
        by_contains = any(
            each.op == "contains" and each.source == "state" for each in where.parse(given)
        )
        assert note is None or by_contains, given
        noted += note is not None
    assert hits > 10
    assert noted


async def test_pages_go_on(store: Store) -> None:
    await fill(store, 40, seed=2)
    parsed = where.parse({"state.x": ("exists", True)})
    asking = Asking(store)
    everything, _ = await asking.find({}, parsed, 1000)
    paged: list[str] = []
    filters: dict[str, Any] = {}
    while page := (await asking.find(filters, parsed, 7))[0]:
        paged += [each.id for each in page]
        filters["before"] = page[-1].id
    assert paged == [each.id for each in everything]


async def test_groups_and_sums(store: Store) -> None:
    await store.declare([("wf", "state.who"), ("wf", "state.n")], "")
    for number, (who, n) in enumerate([("a", 1), ("b", 2.5), ("a", 3), (None, "x"), ("a", ...)]):
        fields = {"who": text_of(who)}
        if n is not ...:
            fields["n"] = text_of(n)
        start = new_start(f"{number}", state=delta.document(fields))
        start.index = where.entries("wf", ["state.who", "state.n"], fields)
        await write_all(store, start)
    asking = Asking(store)
    for filters in ({}, {"workflow_id": "wf"}, {"status": "queued"}):
        found, note = await asking.tally(filters, (), "state.who", "state.n")
        shown = [(each.group, each.count, each.total) for each in found]
        assert shown == [("a", 3, 4.0), (None, 1, None), ("b", 1, 2.5)]
        assert note is None
    found, _ = await asking.tally({}, (), "workflow_id", "state.n")
    assert [(each.group, each.count, each.total) for each in found] == [("wf", 5, 6.5)]
    found, _ = await asking.tally({}, where.parse({"state.who": "a"}), None, "state.n")
    assert [(each.group, each.count, each.total) for each in found] == [(None, 3, 4.0)]


async def test_the_index_follows_the_state_in_its_own_commit(store: Store) -> None:
    await store.declare([("wf", "state.n")], "")
    start = owned_start("a", state='{"n": 1}')
    start.index = [where.entry("wf", "state.n", 1)]
    await write_alone(store, start)
    asking = Asking(store)

    async def who(n: int) -> list[str]:
        return [e.id for e in (await asking.find({}, where.parse({"state.n": n}), 9))[0]]

    assert await who(1) == ["a"]
    entry = StateEntry(1, "s", T0, '{"n": 2}')
    moved = change(
        "a", 1, done_row(1, "s"), states=[entry], index=[where.entry("wf", "state.n", 2)]
    )
    await write_alone(store, moved)
    assert (await who(1), await who(2)) == ([], ["a"])
    stale = change("a", 7, done_row(2, "t"), index=[where.entry("wf", "state.n", 3)])
    await write(store, stale)
    assert await who(3) == []
    gone = change("a", 1, done_row(2, "t"), index=[IndexEntry("wf", "state.n", None)])
    await write_alone(store, gone)
    assert await who(2) == []


async def test_what_was_started_before_the_declaration_is_read(open_store: Opener) -> None:
    store = await open_store()
    await write_all(store, new_start("1", state='{"n": 1}'))
    await store.declare([("wf", "state.n")], "2")
    await store.declare([("wf", "state.n")], "9")  # the first one counts
    start = new_start("3", state='{"n": 1}')
    start.index = [where.entry("wf", "state.n", 1)]
    await write_all(store, start)
    found, note = await Asking(store).find({}, where.parse({"state.n": 1}), 9)
    assert [each.id for each in found] == ["3", "1"]
    assert note is not None
    assert "state.n" in note
    tallies, _ = await Asking(store).tally({}, (), "state.n", None)
    assert [(each.group, each.count) for each in tallies] == [(1, 2)]


async def test_what_no_index_answers_is_read_in_the_newest_and_the_open_ones(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("polos.engine.asking.SCAN_MAX", 5)
    monkeypatch.setattr("polos.engine.asking.PAGE", 2)
    for number in range(10):
        await write_all(store, owned_start(f"{number}", state='{"n": 1}'))
        if number in {0, 1, 3, 8}:
            await write_all(store, change(f"{number}", 1, ending=ending()))
    parsed = where.parse({"state.n": 1})
    found, note = await Asking(store).find({}, parsed, 100)
    assert [each.id for each in found] == ["9", "8", "7", "6", "5", "4", "2"]
    assert note is not None
    assert "left out" in note
    assert "state.n" in caplog.text
    done, _ = await Asking(store).find({"status": Status.COMPLETED}, parsed, 100)
    assert [each.id for each in done] == ["8", "3", "1", "0"]


@pytest.mark.parametrize(
    "text", ["' OR '1'='1", "x'; DROP TABLE execution; --", "$1", "?1", "{s}.execution", '"', "\\"]
)
async def test_whatever_is_compared_is_only_compared(store: Store, text: str) -> None:
    await store.declare([("wf", "state.n")], "")
    start = new_start("a", state=delta.document({"n": text_of(text)}))
    start.index = [where.entry("wf", "state.n", text)]
    await write_all(store, start, new_start("b", state='{"n": 1}'))
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    for given, wanted in (
        ({"state.n": text}, ["a"]),
        ({"state.n": ("contains", text)}, ["a"]),
        ({f'state["{quoted}"]': text}, []),
        ({f'tags["{quoted}"]': text}, []),
        ({f'payload["{quoted}"]': text}, []),
        ({"session_id": text}, []),
        ({"workflow_id": ("in", [text])}, []),
        ({"queue_name": ("contains", text)}, []),
    ):
        found, _ = await Asking(store).find({}, where.parse(given), 9)
        assert [each.id for each in found] == wanted, given
    assert len(await store.find(Query({}), 9)) == 2
