"""State as objects: exact comparison, deep copies, and changes in place."""

import datetime as dt
import enum
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, PrivateAttr

from polos.workflow.state_sync import Sync, clone, same


class Color(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass
class Box:
    size: Any = 0
    labels: list[Any] = field(default_factory=list[Any])


@dataclass(frozen=True)
class Frozen:
    value: Any = 0


@dataclass(slots=True)
class Slotted:
    value: Any = 0


class Row(BaseModel):
    value: Any = None
    _lock: Any = PrivateAttr(default_factory=threading.Lock)


NAN = float("nan")
UTC2 = dt.timezone(dt.timedelta(hours=2))
NOON = dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC)

ATOMS = st.sampled_from(
    [
        *(None, True, False, 0, 1, 2, 0.0, -0.0, 1.0, NAN, "", "a", b"a"),
        *(Decimal("1.0"), Decimal(1), Color.RED, NOON, NOON.astimezone(UTC2)),
    ]
)
KEYS = st.sampled_from(["a", "b", 1, True, 1.0])
VALUES = st.recursive(
    ATOMS | st.sets(st.integers(0, 3)) | st.frozensets(st.booleans()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(deque)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Box, inner, st.lists(inner, max_size=2))
        | st.builds(Frozen, inner)
        | st.builds(Slotted, inner)
        | st.builds(Row, value=inner)
    ),
    max_leaves=6,
)


@given(VALUES, VALUES)
def test_any_value_becomes_any_other(live: Any, target: Any) -> None:
    equal = same(live, target)
    wanted, before = clone(target), clone(live)
    sync = Sync()
    result = sync.value(live, target)
    assert same(result, wanted)
    assert sync.changed is not equal
    if equal:
        assert result is live
        assert same(live, before)


@given(VALUES)
def test_a_copy_is_the_same(value: Any) -> None:
    assert same(clone(value), value)


@given(st.lists(VALUES, min_size=1, max_size=3), st.data())
def test_a_copy_has_the_same_shape(parts: list[Any], data: st.DataObject) -> None:
    value = [data.draw(st.sampled_from(parts)) for _ in range(4)]
    made = clone(value)
    for one, copied in zip(value, made, strict=True):
        for other, copied_other in zip(value, made, strict=True):
            if isinstance(one, list | dict | Row) and one is other:
                assert copied is copied_other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("a", b"a"),
        (Decimal("1.0"), Decimal("1.00")),
        (NOON, NOON.astimezone(UTC2)),
        ([1], (1,)),
        ([1], [True]),
        ({1}, {True}),
        ({1: "a"}, {True: "a"}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, OrderedDict(a=1)),
        (Point(1, 2), (1, 2)),
        (Box(1), Box(1.0)),
        (Row(value=[1]), Row(value=[1.0])),
        ([], [None]),
    ],
)
def test_type_and_order_count(one: Any, other: Any) -> None:
    assert not same(one, other)
    assert not same([one], [other])
    assert same(Sync().value(one, clone(other)), other)


def test_a_nan_is_the_same_as_another() -> None:
    assert same([float("nan")], [float("nan")])
    assert same({float("nan")}, {float("nan")})
    assert same(Decimal("nan"), Decimal("nan"))


@pytest.mark.parametrize(
    ("live", "target"),
    [
        ([1, 2, 3], [1]),
        ([1], [2, 3, 4]),
        (deque([1, 2], maxlen=5), deque([2])),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1, "c": 3}),
        (defaultdict(list, {"a": [1]}), defaultdict(None, {"b": [1]})),
        (OrderedDict(a=1, b=2), OrderedDict(b=2, a=1)),
        (Counter(a=1), Counter(a=2, b=1)),
        ({1, 2}, {2, 3}),
        (Row(value=1), Row(value=2)),
        (Box(1, ["a"]), Box(2, ["b"])),
        (Slotted(1), Slotted(2)),
    ],
)
def test_containers_stay(live: Any, target: Any) -> None:
    result = Sync().value(live, clone(target))
    assert result is live
    assert list(live) == list(target) if not isinstance(live, Box | Slotted) else live == target
    assert same(live, target)


def test_a_container_keeps_what_json_does_not_hold() -> None:
    recent, groups, row = deque([1], maxlen=2), defaultdict(list, {"a": [1]}), Row(value=1)
    lock = row._lock
    live = [recent, groups, row]
    Sync().value(live, [deque([2]), defaultdict(None, {"b": [2]}), Row(value=2)])
    assert recent.maxlen == 2
    assert groups["new"] == []
    assert row._lock is lock


def test_containers_in_containers_stay() -> None:
    row, box, inner = Row(value=[1]), Box(1, [2]), {"x": [1]}
    values, labels, numbers = row.value, box.labels, inner["x"]
    live: Any = {"rows": [row, Row()], "pair": (box, 1), "deep": [[inner]]}
    pair = live["pair"]
    target = {"rows": [Row(value=[1, 2])], "pair": (Box(2, [3]), 1), "deep": [[{"x": []}]]}
    Sync().value(live, target)
    assert live["rows"] == [row]
    assert row.value is values
    assert values == [1, 2]
    assert live["pair"] is pair
    assert box.labels is labels
    assert labels == [3]
    assert live["deep"][0][0] is inner
    assert inner["x"] is numbers
    assert numbers == []


def test_a_tuple_is_made_anew_of_what_stays() -> None:
    inner = [1]
    live = {"pair": Point(inner, 1)}
    Sync().value(live, {"pair": Point([2], 2)})
    assert live["pair"] == Point([2], 2)
    assert type(live["pair"]) is Point
    assert live["pair"].x is inner


def test_where_nothing_differs_nothing_is_touched() -> None:
    class Untouchable(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            raise AssertionError(key)

        def clear(self) -> None:
            raise AssertionError

    live = [Untouchable(a=[1, NAN], b=(1, [2]))]
    sync = Sync()
    sync.value(live, [Untouchable(a=[1, NAN], b=(1, [2]))])
    assert not sync.changed


def test_one_object_at_two_places_stays_one_where_both_are_to_be_alike() -> None:
    shared = [1]
    live = {"a": shared, "b": shared}
    Sync().value(live, {"a": [2], "b": [2]})
    assert live["a"] is live["b"] is shared


def test_one_object_at_two_places_is_parted_where_they_are_to_differ() -> None:
    shared = Row(value=1)
    live = {"a": shared, "b": shared}
    Sync().value(live, {"a": Row(value=2), "b": Row(value=3)})
    assert live["a"] is shared
    assert (live["a"].value, live["b"].value) == (2, 3)


def test_what_is_frozen_is_replaced() -> None:
    frozen = Frozen(1)
    live = {"one": frozen, "keys": {frozen}}
    Sync().value(live, {"one": Frozen(2), "keys": {Frozen(1)}})
    assert live == {"one": Frozen(2), "keys": {Frozen(1)}}
    assert frozen == Frozen(1)


def test_a_copy_shares_no_container_but_what_private_attributes_hold() -> None:
    row = Row(value={"a": [1], "b": {1}, "c": deque([[1]]), "d": ([1],)})
    made = clone(row)
    assert made._lock is row._lock
    row.value["a"].append(2)
    row.value["b"].add(2)
    row.value["c"][0].append(2)
    row.value["d"][0].append(2)
    assert made.value == {"a": [1], "b": {1}, "c": deque([[1]]), "d": ([1],)}


def test_a_cycle_is_copied() -> None:
    loop: list[Any] = []
    loop.append(loop)
    made = clone(loop)
    assert made[0] is made
    assert made is not loop


def test_many_short_lived_parts_are_not_mixed_up() -> None:
    rows = [Row(value={"n": number}) for number in range(1_000)]
    assert [row.value for row in clone(rows)] == [{"n": number} for number in range(1_000)]
