"""Typed state: its record field by field, and the way back to a model."""

import copy
import datetime as dt
import enum
import json
import math
import subprocess
import sys
import uuid
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from typing_extensions import TypedDict

from polos.core import delta
from polos.errors import EncodeError, InvalidStateError, StateSchemaError, StateTooLargeError
from polos.workflow.state import StateSchema, WorkflowState
from polos.workflow.state_sync import same


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(NamedTuple):
    x: int
    at: dt.date


class Options(TypedDict, total=False):
    name: str
    sizes: list[float]


@dataclass
class Box:
    weight: float = 0.0
    labels: list[str] = field(default_factory=list[str])


class Leg(BaseModel):
    model_config = ConfigDict(populate_by_name=False)
    start: str = Field(default="", alias="from")
    distance: float = 0.0
    ticket: bytes = b""
    tags: set[str] = set()
    _secret: list[int] = PrivateAttr(default_factory=list[int])


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Tree(BaseModel):
    name: str = ""
    kids: list["Tree"] = []


class Trip(WorkflowState):
    model_config = ConfigDict(extra="allow")

    count: int = 0
    ratio: float = 0.0
    note: str | None = None
    flag: bool = False
    raw: bytes = b""
    when: dt.datetime | None = None
    took: dt.timedelta = dt.timedelta(0)
    price: Decimal = Decimal(0)
    id: uuid.UUID | None = None
    color: Color = Color.RED
    level: Level = Level.LOW
    seen: set[str] = set()
    numbers: frozenset[int] = frozenset()
    pair: tuple[int, str] = (0, "")
    many: tuple[float, ...] = ()
    by_id: dict[int, Leg] = {}
    recent: deque[int] = deque()
    point: Point | None = None
    options: Options = {}
    box: Box = Box()
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    tree: Tree = Tree()
    legs: list[Leg] = Field(default=[], alias="theLegs")
    anything: Any = None
    config: dict[str, Any] = {}
    _cache: dict[str, int] = PrivateAttr(default_factory=dict[str, int])

    @computed_field
    @property
    def twice(self) -> int:
        return 2 * self.count


TRIP = StateSchema(Trip)


def a_trip(**values: Any) -> Trip:
    return Trip.model_validate(values)


def a_leg(start: str = "", **values: Any) -> Leg:
    return Leg.model_validate({"from": start, **values})


TEXT = st.text(max_size=5)
FLOATS = st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
LEGS = st.builds(
    a_leg,
    TEXT,
    distance=FLOATS,
    ticket=st.binary(max_size=5),
    tags=st.sets(TEXT, max_size=4),
)
TREES = st.recursive(
    st.builds(Tree, name=TEXT),
    lambda inner: st.builds(Tree, name=TEXT, kids=st.lists(inner, max_size=3)),
    max_leaves=4,
)
TIMES = st.datetimes(timezones=st.none() | st.just(dt.UTC))
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "count": st.integers(),
    "ratio": FLOATS,
    "note": st.none() | st.text(),
    "flag": st.booleans(),
    "raw": st.binary(),
    "when": st.none() | TIMES,
    "took": st.timedeltas(dt.timedelta(days=-9_999), dt.timedelta(days=9_999)),
    "price": st.decimals(allow_nan=False, allow_infinity=False),
    "id": st.none() | st.uuids(),
    "color": st.sampled_from(Color),
    "level": st.sampled_from(Level),
    "seen": st.sets(TEXT, max_size=5),
    "numbers": st.frozensets(st.integers(), max_size=5),
    "pair": st.tuples(st.integers(), TEXT),
    "many": st.lists(FLOATS, max_size=3).map(tuple),
    "by_id": st.dictionaries(st.integers(), LEGS, max_size=2),
    "recent": st.lists(st.integers(), max_size=3).map(deque),
    "point": st.none() | st.builds(Point, st.integers(), st.dates()),
    "options": st.fixed_dictionaries({}, optional={"name": TEXT, "sizes": st.lists(FLOATS)}),
    "box": st.builds(Box, FLOATS, st.lists(TEXT, max_size=3)),
    "pet": st.builds(Cat, lives=st.integers()) | st.builds(Dog, tricks=st.lists(TEXT)),
    "tree": TREES,
    "theLegs": st.lists(LEGS, max_size=3),
    "anything": JSON,
    "config": st.dictionaries(TEXT, JSON, max_size=3),
}


@st.composite
def trips(draw: st.DrawFn) -> Trip:
    chosen = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=8))
    extra = draw(st.dictionaries(st.sampled_from(["more", "", "legs_", "x\0"]), JSON, max_size=2))
    return a_trip(**{name: draw(FIELDS[name]) for name in sorted(chosen)}, **extra)


@given(trips())
def test_a_state_comes_back_from_its_record(trip: Trip) -> None:
    fields = TRIP.dump(trip)
    loaded = TRIP.load(fields)
    assert same(loaded, trip)
    assert TRIP.dump(loaded) == fields
    assert same(TRIP.load(delta.split(delta.document(fields))), loaded)
    assert not TRIP.lost(trip, fields)
    json.loads(delta.document(fields))


@given(trips())
def test_a_copy_is_equal_and_shares_nothing(trip: Trip) -> None:
    trip._cache["a"] = 1
    made = TRIP.copy(trip)
    assert same(made, trip)
    assert made == trip
    assert made.model_fields_set == trip.model_fields_set
    assert not containers(made) & containers(trip)


@given(trips(), trips())
def test_sync_makes_any_state_equal_to_any_other_in_place(live: Trip, target: Trip) -> None:
    wanted, before = TRIP.copy(target), TRIP.dump(live)
    kept = {
        name: value
        for name, value in vars(live).items()
        if isinstance(value, list | dict | set | deque | Box | Tree)
        and type(value) is type(vars(target)[name])
    }
    equal = same(live, target)
    assert TRIP.sync(live, target) is not equal
    assert same(live, wanted)
    assert (list(before.items()) == list(TRIP.dump(live).items())) is equal  # in this order
    assert TRIP.sync(live, wanted) is False
    assert all(vars(live)[name] is value for name, value in kept.items())


@given(trips(), trips())
def test_restore_reads_a_record_into_a_state(live: Trip, other: Trip) -> None:
    record = TRIP.dump(other)
    differs = TRIP.dump(live) != record
    assert TRIP.restore(live, record) is differs
    assert TRIP.dump(live) == record
    # The order of extra fields is no part of a state.
    assert same(live, TRIP.load({name: record[name] for name in TRIP.dump(live)}))
    assert TRIP.restore(live, record) is False


@given(trips(), trips())
def test_a_change_leads_from_any_state_to_any_other(live: Trip, other: Trip) -> None:
    before, after = TRIP.dump(live), TRIP.dump(other)
    ops = json.loads(json.dumps(TRIP.change(before, after)))
    assert (ops == []) is (before == after)
    TRIP.apply_change(live, ops)
    assert unordered(TRIP.dump(live)) == unordered(after)
    assert TRIP.merged(before, ops) == TRIP.dump(live)


@given(trips(), st.lists(LEGS, min_size=1, max_size=3))
def test_an_append_leads_to_the_appended(live: Trip, legs: list[Leg]) -> None:
    other = TRIP.copy(live)
    vars(other)["legs"].extend(legs)
    before, after, kept = TRIP.dump(live), TRIP.dump(other), live.legs
    ops = json.loads(json.dumps(TRIP.change(before, after)))
    assert [(op[0], op[1]) for op in ops] == [("append", ["legs"])]
    assert TRIP.merged(before, ops) == after
    TRIP.apply_change(live, ops)
    assert TRIP.dump(live) == after
    assert live.legs is kept


def unordered(fields: delta.Fields) -> dict[str, str]:
    """Return the values in text, whatever the order of keys in them."""
    return {name: json.dumps(json.loads(text), sort_keys=True) for name, text in fields.items()}


def containers(value: Any) -> set[int]:
    """Return the ids of everything in a state that could be changed."""
    if isinstance(value, BaseModel):
        inner = [*value.__dict__.values(), value.__pydantic_extra__]
    elif isinstance(value, dict):
        inner = list(value.values())
    elif isinstance(value, Box):
        inner = [value.labels]
    elif isinstance(value, list | set | deque):
        inner = list(value)
    else:
        return set()
    return {id(value)}.union(*map(containers, inner))


# -- the record ---------------------------------------------------------------------------------


def test_a_record_is_by_name_exact_and_without_what_is_not_state() -> None:
    trip = a_trip(
        theLegs=[a_leg("a", distance=math.inf, ticket=b"\xff\xfe", tags={"y", "x"})],
        ratio=math.nan,
        raw=b"\xff",
        more=1,
    )
    fields = TRIP.dump(trip)
    assert fields["legs"] == (
        b'[{"start":"a","distance":Infinity,"ticket":"__4=","tags":["x","y"]}]'
    )
    assert fields["ratio"] == b"NaN"
    assert fields["raw"] == b'"_w=="'
    assert fields["more"] == b"1"
    assert next(iter(fields)) == "count"
    assert list(fields)[-1] == "more"
    assert "twice" not in fields
    assert "_cache" not in fields


def test_a_plain_model_is_recorded_the_same_way() -> None:
    class Plain(BaseModel):
        model_config = ConfigDict(ser_json_timedelta="float", serialize_by_alias=True)
        value: float = Field(default=math.nan, alias="VALUE")
        data: bytes = b"\xff"
        took: dt.timedelta = dt.timedelta(microseconds=1)

    schema = StateSchema(Plain)
    fields = schema.dump(Plain())
    assert fields == {"value": b"NaN", "data": b'"_w=="', "took": b'"PT0.000001S"'}
    assert same(schema.load(fields), Plain())


def test_sets_are_recorded_alike_in_every_process() -> None:
    code = (
        "from polos.workflow.state import StateSchema, WorkflowState\n"
        "class S(WorkflowState):\n"
        "    a: set[str] = set()\n"
        "    b: frozenset[str | int] = frozenset()\n"
        "s = S(a={'x', 'y', 'z', 'é'}, b={'x', 'y', 1, 2, 3})\n"
        "print(StateSchema(S).dump(s))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in range(3)
    }
    assert len(outputs) == 1


def test_a_value_with_the_key_that_marks_fields_is_no_problem() -> None:
    class Marked(WorkflowState):
        a: dict[str, Any] = {}
        b: str = ""

    value = {"\0": {"\0": 1, "": 2}, "": 3}
    schema = StateSchema(Marked)
    state = Marked(a=value, b=',"\\u0000":')
    fields = schema.dump(state)
    assert list(fields) == ["a", "b"]
    assert same(schema.load(fields), state)


def test_large_states_are_cut_like_small_ones() -> None:
    class Large(WorkflowState):
        first: str = ""
        items: list[str] = []
        last: int = 1

    schema = StateSchema(Large)
    state = Large(first="x" * 10_000, items=["y" * 100] * 1_000)
    assert {name: json.loads(text) for name, text in schema.dump(state).items()} == {
        **state.model_dump()
    }


def test_a_state_without_fields() -> None:
    schema = StateSchema(WorkflowState)
    assert schema.dump(schema.initial()) == {}
    assert schema.change({}, {}) == []


def test_serializers_of_fields_see_their_model() -> None:
    class Scaled(WorkflowState):
        unit: int = 10
        value: int = 5

        @field_serializer("value")
        def _scale(self, value: int) -> int:
            return value * self.unit

        @field_validator("value", mode="before")
        @classmethod
        def _unscale(cls, value: Any, info: Any) -> int:
            return value // info.data["unit"]

    with pytest.warns(UserWarning, match="value: it cannot be told"):
        schema = StateSchema(Scaled)
    state = schema.load({"unit": b"10", "value": b"50"})
    assert schema.dump(state) == {"unit": b"10", "value": b"50"}
    schema.apply_change(state, [["add", ["unit"], 10, 20]])
    assert schema.dump(state)["unit"] == b"20"


def test_a_serializer_of_the_whole_class_is_left_out() -> None:
    class Shown(WorkflowState):
        n: int = 1

        @model_serializer(mode="plain")
        def _show(self) -> str:
            return f"n is {self.n}"

    schema = StateSchema(Shown)
    assert schema.dump(schema.initial()) == {"n": b"1"}
    assert schema.load({"n": b"2"}) == Shown(n=2)


def test_what_the_class_does_after_reading_is_done_for_every_change() -> None:
    class Sorted(WorkflowState):
        items: list[int] = []
        top: int = 0
        _private: int = PrivateAttr(0)

        def model_post_init(self, context: Any) -> None:
            vars(self)["top"] = max(self.items, default=0)

    schema = StateSchema(Sorted)
    state = schema.initial({"items": [1]})
    schema.apply_change(state, [["append", ["items"], [5]]])
    assert schema.dump(state) == {"items": b"[1,5]", "top": b"5"}
    assert schema.merged(schema.dump(state), [["append", ["items"], [7]]]) == {
        "items": b"[1,5,7]",
        "top": b"7",
    }


def test_the_text_of_a_state_tells_whether_it_is_the_same() -> None:
    class Pair(WorkflowState):
        a: int = 1
        b: Any = 2

    schema = StateSchema(Pair)
    flat = schema.flat
    state = Pair()
    text = flat.exact(state)
    assert text is not None
    assert flat.quick(state) == text
    assert flat.fields(text) == schema.dump(state) == {"a": b"1", "b": b"2"}
    assert flat.size(text) == len('{"a":1,"b":2}')
    assert flat.of(schema.dump(state)) == text
    assert flat.of({"a": b"1", "old": b"2"}) is None
    object.__setattr__(state, "__dict__", {"b": 1, "a": 2})
    assert flat.quick(state) is None
    assert flat.exact(state) is None
    assert schema.dump(state) == {"a": b"2", "b": b"1"}
    state = Pair(b=3)
    assert flat.quick(state) != text
    state.b = object()
    assert flat.quick(state) is None
    state.b = {"\0": 1, "\0\0": 2, "c": {"\0": 3}}
    text = flat.quick(state)
    assert text is not None
    assert schema.dump(state)["b"] == b'{"\\u0000":1,"\\u0000\\u0000":2,"c":{"\\u0000":3}}'
    state.b = {"c": 1, "\0": 2}
    text = flat.quick(state)
    assert text is not None
    assert flat.fields(text) is None
    assert schema.dump(state)["b"] == b'{"c":1,"\\u0000":2}'


def test_a_cached_property_is_not_state() -> None:
    class Cached(WorkflowState):
        items: list[int] = []

        @cached_property
        def total(self) -> int:
            return sum(self.items)

    schema = StateSchema(Cached)
    state = Cached(items=[1])
    assert state.total == 1
    assert schema.dump(state) == {"items": b"[1]"}
    assert schema.copy(state).__dict__ == {"items": [1]}
    schema.restore(state, {"items": b"[1,2]"})
    assert state.total == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("anything", object()), ("config", {"a": {"b": object()}}), ("note", "\ud800")],
)
def test_a_value_that_json_does_not_hold_is_named(name: str, value: Any) -> None:
    trip = Trip()
    vars(trip)[name] = value
    with pytest.raises(EncodeError, match=f"'{name}'.* cannot be recorded") as caught:
        TRIP.dump(trip)
    assert caught.value.path == name


class Loose(WorkflowState):
    words: list[str] = []
    ratios: list[float] = []
    legs: list[Leg] = []


def test_a_value_of_another_type_than_declared_is_recorded_if_it_can_be_read() -> None:
    schema = StateSchema(Loose)
    state = Loose()
    state.ratios.append(1)
    state.legs.append({"start": "a"})  # type: ignore[arg-type]
    fields = schema.dump(state)
    assert schema.load(fields) == Loose(ratios=[1.0], legs=[a_leg("a")])


def test_a_value_of_another_type_that_could_not_be_read_is_named() -> None:
    schema = StateSchema(Loose)
    state = Loose()
    state.words.append(1)  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match=r"(?s)'words' cannot be recorded: .*words\.0"):
        schema.dump(state)


def test_a_deleted_field_is_named() -> None:
    state = Loose()
    del state.words
    with pytest.raises(EncodeError, match=r"'words' .* deleted"):
        StateSchema(Loose).dump(state)


def test_what_does_not_come_back_is_found() -> None:
    trip = Trip(anything=(1, 2), config={"a": 1})
    assert TRIP.lost(trip, TRIP.dump(trip)) == ["anything"]


# -- reading ------------------------------------------------------------------------------------


def test_a_record_that_does_not_fit_names_every_mistake() -> None:
    fields = StateSchema(Loose).dump(Loose())
    with pytest.raises(InvalidStateError) as caught:
        StateSchema(Loose).load({**fields, "words": b"[1]", "gone": b"1", "ratios": b'"x"'})
    message = str(caught.value)
    assert message.startswith("state does not fit Loose:\n")
    assert "words.0: Input should be a valid string, not 1" in message
    assert "gone: the schema has no such field" in message
    assert "ratios: " in message


def test_only_what_differs_is_checked() -> None:
    schema = StateSchema(Loose)
    good = schema.dump(Loose())
    bad = {**good, "words": b"[null]"}
    schema.check(good)
    schema.check({**good, "ratios": b"[1.0]"}, good)
    schema.check(bad, bad)
    for before in (None, good, {"ratios": b"[]"}):
        with pytest.raises(InvalidStateError, match=r"words\.0: Input should be a valid string"):
            schema.check(bad, before)
    with pytest.raises(InvalidStateError, match="gone"):
        schema.check({**good, "gone": b"1"}, good)


def test_a_list_with_rules_is_appended_to_by_its_rules() -> None:
    class Limited(WorkflowState):
        items: list[int] = Field(default=[], max_length=2)
        plain: list[PositiveInt] = []

    schema = StateSchema(Limited)
    state = schema.initial({"items": [1]})
    schema.apply_change(state, [["append", ["items"], [2]]])
    assert schema.dump(state)["items"] == b"[1,2]"
    for name, items in (("items", [3]), ("plain", [-1])):
        with pytest.raises(InvalidStateError, match=name):
            schema.apply_change(state, [["append", [name], items]])
        with pytest.raises(InvalidStateError, match=name):
            schema.merged(schema.dump(state), [["append", [name], items]])
    assert schema.dump(state) == {"items": b"[1,2]", "plain": b"[]"}


def test_a_field_that_is_new_in_the_class_gets_its_default() -> None:
    assert StateSchema(Loose).load({"words": b'["a"]'}) == Loose(words=["a"])


def test_a_lost_key_of_a_nested_model_is_refused() -> None:
    with pytest.raises(InvalidStateError, match=r"legs\.0\.gone: the schema has no such field"):
        StateSchema(Loose).load({"legs": b'[{"gone":1}]'})


def test_a_state_is_read_back_without_its_init() -> None:
    class Made(WorkflowState):
        n: int = 0

        def __init__(self, number: int) -> None:
            values: dict[str, Any] = {"n": number}
            super().__init__(**values)

    schema = StateSchema(Made)
    assert schema.dump(schema.load({"n": b"3"})) == {"n": b"3"}
    assert schema.dump(schema.initial(Made(4))) == {"n": b"4"}


def test_defaults_that_are_not_valid_come_back() -> None:
    class Sloppy(WorkflowState):
        name: str = None  # type: ignore[assignment]
        count: PositiveInt = 0
        ratio: float = 0

    schema = StateSchema(Sloppy)
    state = schema.initial()
    fields = schema.dump(state)
    assert fields == {"name": b"null", "count": b"0", "ratio": b"0.0"}
    assert schema.load(fields) == state
    state.name, state.count = "a", 2  # type: ignore[attr-defined]
    assert schema.restore(state, fields)
    assert schema.dump(state) == fields


# -- the initial state --------------------------------------------------------------------------


class Inner(BaseModel):
    items: list[int] = []


class Counter(WorkflowState):
    count: int = 0
    inner: Inner = Inner()
    names: list[str] = Field(default=[], alias="theNames")


COUNTER = StateSchema(Counter)


def test_defaults_fill_the_initial_state() -> None:
    assert COUNTER.initial() == Counter()
    assert COUNTER.initial({}) == Counter()
    assert COUNTER.initial({"count": 3}) == Counter(count=3)
    assert COUNTER.initial({"theNames": ["a"]}) == Counter.model_validate({"theNames": ["a"]})
    assert COUNTER.initial({"names": ["a"]}) == Counter.model_validate({"theNames": ["a"]})
    assert COUNTER.initial('{"count": 3, "theNames": ["a"]}') == Counter.model_validate(
        {"count": 3, "theNames": ["a"]}
    )
    assert COUNTER.initial(Counter(count=3)) == Counter(count=3)


def test_an_initial_state_shares_nothing() -> None:
    class Shared(WorkflowState):
        made: list[int] = Field(default_factory=lambda: SHARED)
        inner: Inner = Inner()
        anything: Any = []

    schema = StateSchema(Shared)
    given = Shared(inner=Inner(items=[1]), anything={"a": [1]})
    states = [schema.initial(value) for value in (None, None, given, given, given.model_dump())]
    found = [containers(state) for state in [given, *states]]
    assert all(not one & other for one in found for other in found if one is not other)
    assert id(SHARED) not in set().union(*found[1:])


SHARED = [1, 2]


@pytest.mark.parametrize("value", [None, {"count": 3}, Counter(count=3)])
def test_a_state_to_begin_with_is_what_its_record_gives(value: Any) -> None:
    for _ in range(3):
        state, fields = COUNTER.recorded(value)
        assert isinstance(state, Counter)
        assert fields == COUNTER.dump(state)
        assert same(state, COUNTER.load(fields))
        assert same(state, COUNTER.initial(value))
        state.inner.items.append(5)
    assert same(COUNTER.recorded(value)[0], COUNTER.initial(value))


def test_defaults_that_are_made_anew_are_made_for_every_execution() -> None:
    numbers = iter(range(1, 100))

    class Made(WorkflowState):
        number: int = Field(default_factory=lambda: next(numbers))

    class Checked(WorkflowState):
        number: int = Field(default=0, validate_default=True)

        @field_validator("number")
        @classmethod
        def count(cls, value: int) -> int:
            return value or next(numbers)

    class Whole(WorkflowState):
        number: int = 0

        @model_validator(mode="after")
        def count(self) -> "Whole":
            object.__setattr__(self, "number", self.number or next(numbers))
            return self

    with pytest.warns(UserWarning, match="its default 0 comes back as"):
        checked = StateSchema(Checked)
    for schema in (StateSchema(Made), checked, StateSchema(Whole)):
        found = [schema.recorded()[1]["number"] for _ in range(3)]
        assert len(set(found)) == 3, schema.cls


def test_a_key_with_a_lone_surrogate_is_refused_and_not_replaced() -> None:
    class Loose(WorkflowState):
        by_name: dict[str, Any] = {}

    schema = StateSchema(Loose)
    for strange in ({"a\ud800": 1}, {"a": [{"\udfff": 1}]}, {"a": ({"\udfff": 1},)}):
        with pytest.raises(EncodeError, match=r"'by_name' of Loose .* surrogate"):
            schema.dump(Loose(by_name=strange))
        with pytest.raises(InvalidStateError, match="surrogate"):
            schema.initial({"by_name": strange})
    real = Loose(by_name={"\ufffd": "\ufffd"})
    assert schema.load(schema.dump(real)) == real


def test_a_model_of_another_class_is_taken_if_it_fits() -> None:
    class Other(BaseModel):
        count: int = 5
        inner: dict[str, list[int]] = {"items": [1]}

    assert COUNTER.initial(Other()) == Counter(count=5, inner=Inner(items=[1]))


def test_a_subclass_that_has_more_is_refused() -> None:
    class More(Counter):
        extra: int = 1

    with pytest.raises(InvalidStateError, match="extra: the schema has no such field"):
        COUNTER.initial(More())


def test_an_initial_state_that_does_not_fit_names_every_mistake() -> None:
    with pytest.raises(InvalidStateError) as caught:
        COUNTER.initial({"count": "x", "inner": {"itmes": [1]}, "mode": 1})
    assert str(caught.value) == (
        "initial state does not fit Counter:\n"
        "  count: Input should be a valid integer, unable to parse string as an integer, not 'x'\n"
        "  inner.itmes: the schema has no such field\n"
        "  mode: the schema has no such field"
    )


@pytest.mark.parametrize("value", [[], 1, "x", "[]", [("count", 1)]])
def test_an_initial_state_is_a_model_or_a_dict(value: Any) -> None:
    with pytest.raises(InvalidStateError, match="initial state does not fit Counter"):
        COUNTER.initial(value)


def test_an_initial_state_that_was_changed_past_its_validators_is_checked() -> None:
    given = Counter()
    given.names.append(1)  # type: ignore[arg-type]
    with pytest.raises(InvalidStateError, match="names"):
        COUNTER.initial(given)


def test_unknown_keys_are_kept_where_the_class_allows_them() -> None:
    assert TRIP.initial({"more": [1]}).model_extra == {"more": [1]}


def test_a_validator_of_the_class_may_take_other_keys() -> None:
    class Renamed(WorkflowState):
        total: int = 0

        @model_validator(mode="before")
        @classmethod
        def _rename(cls, data: Any) -> Any:
            return {"total": data["sum"]} if "sum" in data else data

    schema = StateSchema(Renamed)
    assert schema.initial({"sum": 3}) == Renamed(total=3)
    state = schema.initial()
    schema.apply_change(state, [["add", ["total"], 3, 3]])
    assert schema.restore(state, {"total": b"4"})
    assert state == Renamed(total=4)


def test_assignments_are_validated() -> None:
    state = Counter()
    with pytest.raises(ValidationError):
        state.count = "x"  # type: ignore[assignment]
    assert state.count == 0


# -- in place -----------------------------------------------------------------------------------


def test_restore_keeps_containers_and_touches_only_what_differs() -> None:
    class Watched(dict[str, Any]):
        touched = 0

        def __setitem__(self, key: str, value: Any) -> None:
            type(self).touched += 1
            super().__setitem__(key, value)

    trip = a_trip(theLegs=[Leg(), Leg()], config={"a": {"b": [1, 2]}, "c": 1}, anything=[1])
    trip.config["a"] = Watched(trip.config["a"])
    trip._cache["kept"] = 1
    legs, leg, config, numbers = trip.legs, trip.legs[1], trip.config, trip.config["a"]["b"]
    record = TRIP.dump(trip)
    record["legs"] = record["legs"].replace(b'"start":""', b'"start":"x"')
    record["config"] = record["config"].replace(b"[1,2]", b"[1,2,3]")
    assert TRIP.restore(trip, record)
    assert trip.legs is legs
    assert legs[1] is leg
    assert leg.start == "x"
    assert trip.config is config
    assert trip._cache == {"kept": 1}
    assert numbers in ([1, 2], [1, 2, 3])


def test_restore_comes_through_where_the_state_cannot_be_recorded() -> None:
    state = Loose()
    fields = StateSchema(Loose).dump(state)
    words = state.words
    words.append(object())  # type: ignore[arg-type]
    assert StateSchema(Loose).restore(state, fields)
    assert state.words is words
    assert words == []


def test_one_object_in_two_fields_is_parted_where_the_record_has_two() -> None:
    class Pair(WorkflowState):
        a: Any = None
        b: Any = None
        n: int = 0

    schema = StateSchema(Pair)
    shared = [1]
    state = Pair(a=shared, b=shared)
    copied = vars(schema.copy(state))
    assert copied["a"] is copied["b"]
    assert schema.restore(state, {"a": b"[1]", "b": b"[1,2]", "n": b"0"})
    assert (state.a, state.b) == ([1], [1, 2])
    state = Pair(a=shared, b=shared)
    assert schema.restore(state, {"a": b"[5]", "b": b"[6]", "n": b"1"})
    assert (state.a, state.b, state.n) == ([5], [6], 1)


def test_extra_fields_come_and_go() -> None:
    trip = a_trip(more=1, other=2)
    record = TRIP.dump(trip)
    del record["more"]
    assert TRIP.restore(trip, record)
    assert trip.model_extra == {"other": 2}
    assert TRIP.restore(trip, {**record, "new": b"[1]"})
    assert trip.model_extra == {"other": 2, "new": [1]}


def test_a_frozen_model_is_replaced() -> None:
    class Frozen(BaseModel):
        model_config = ConfigDict(frozen=True)
        n: int = 0

    class Holder(WorkflowState):
        one: Frozen = Frozen()
        keys: set[Frozen] = set()

    schema = StateSchema(Holder)
    one = Frozen(n=1)
    state = Holder.model_validate({"one": one, "keys": [one]})
    schema.restore(state, {"one": b'{"n":2}', "keys": b'[{"n":1}]'})
    assert state.one == Frozen(n=2)
    assert list(state.keys) == [Frozen(n=1)]
    assert one.n == 1


# -- changes ------------------------------------------------------------------------------------


class Totals(WorkflowState):
    done: int = 0
    spent: Decimal = Decimal(0)
    seen: set[str] = set()
    level: Level = Level.LOW
    log: list[str] = []
    by_name: dict[str, int] = {}
    parts: dict[str, Inner] = {}
    limited: int = Field(default=0, le=3)


TOTALS = StateSchema(Totals)


def merged(base: Totals, *states: Totals) -> Totals:
    """Return the state that bodies make, that all began with `base` and ended with `states`."""
    live = copy.deepcopy(base)
    before = TOTALS.dump(base)
    for state in states:
        ops = json.loads(json.dumps(TOTALS.change(before, TOTALS.dump(state))))
        reached = TOTALS.merged(TOTALS.dump(live), ops)
        TOTALS.apply_change(live, ops)
        assert TOTALS.dump(live) == reached
    return live


def test_two_bodies_lose_no_increment() -> None:
    base = Totals(done=1, spent=Decimal("1.50"), seen={"b"}, log=["a"], by_name={"x": 1})
    one = Totals(
        done=2,
        spent=Decimal("2.00"),
        seen={"b", "a"},
        level=Level.HIGH,
        log=["a", "one"],
        by_name={"x": 2, "y": 1},
        parts={"p": Inner(items=[1])},
    )
    other = Totals(
        done=3,
        spent=Decimal("1.25"),
        seen={"c"},
        level=Level.HIGH,
        log=["a", "other"],
        by_name={"x": 1, "y": 1},
        parts={"p": Inner(items=[2])},
    )
    assert merged(base, one, other) == Totals(
        done=4,
        spent=Decimal("1.75"),
        seen={"a", "c"},
        level=Level.HIGH,
        log=["a", "one", "other"],
        by_name={"x": 2, "y": 2},
        parts={"p": Inner(items=[1, 2])},
    )


def test_a_change_that_does_not_fit_any_more_is_refused() -> None:
    state = Totals()
    ops = TOTALS.change(TOTALS.dump(state), TOTALS.dump(Totals(limited=2)))
    TOTALS.apply_change(state, ops)
    record = TOTALS.dump(state)
    with pytest.raises(InvalidStateError, match="limited: Input should be less than"):
        TOTALS.apply_change(state, ops)
    with pytest.raises(InvalidStateError, match="limited"):
        TOTALS.merged(record, ops)
    assert TOTALS.dump(state) == record


# -- size ---------------------------------------------------------------------------------------


def test_a_state_that_is_too_large_names_its_largest_field() -> None:
    fields = TOTALS.dump(Totals(log=["x" * 1_000] * 1_100, by_name={"a": 1}))
    with pytest.raises(StateTooLargeError, match=r"\(1\.05MB\) exceeds .* \(1\.0MB\).*'log'") as it:
        TOTALS.check_size(fields)
    assert it.value.field == "log"
    assert it.value.size == len(delta.document(fields))
    assert it.value.limit == 1_048_576


def test_a_state_may_have_exactly_its_limit() -> None:
    fields = TOTALS.dump(Totals())
    size = len(delta.document(fields))
    TOTALS.check_size(fields, size)
    with pytest.raises(StateTooLargeError):
        TOTALS.check_size(fields, size - 1)


# -- classes that cannot be state ---------------------------------------------------------------


@pytest.mark.parametrize("cls", [int, Box, "Trip", None, Trip()])
def test_a_state_schema_is_a_model_class(cls: Any) -> None:
    with pytest.raises(StateSchemaError, match="is not a model with fields"):
        StateSchema(cls)


def test_a_class_with_unknown_names_is_refused() -> None:
    class Waiting(WorkflowState):
        later: "list[NotDefined]" = []  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(StateSchemaError, match=r"Waiting is not complete: .*NotDefined"):
        StateSchema(Waiting)


class Seen(str):
    """A name that counts how often somebody looks it up."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Seen.looks += 1
        return super().__hash__()


def test_each_extra_field_is_written_without_a_look_at_the_others() -> None:
    trip = a_trip()
    extra = {Seen(f"more{number}"): number for number in range(500)}
    object.__setattr__(trip, "__pydantic_extra__", extra)
    Seen.looks = 0
    assert TRIP.dump(trip)["more7"] == b"7"
    assert Seen.looks < 500 * 100  # some for each declared field


class Nest(WorkflowState):
    values: list[Any] = []
    word: str = ""


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_a_field_is_refused_if_it_is_too_deep_for_the_state_around_it() -> None:
    schema = StateSchema(Nest)
    before = schema.dump(Nest())
    for depth in (200, 201, 202):
        fields = {**before, "values": nested(depth)}
        if depth == 200:
            schema.check(fields, before)
            assert schema.fits_each(fields, ["values"])
            assert schema.dump(schema.load(fields)) == fields
            continue
        assert not schema.fits_each(fields, ["values"])
        with pytest.raises(InvalidStateError, match="values: Invalid JSON: recursion"):
            schema.check(fields, before)
        with pytest.raises(InvalidStateError):
            schema.load(fields)


def test_what_is_wrong_in_a_field_is_named_by_its_place() -> None:
    schema = StateSchema(Trip)
    before = schema.dump(Trip())
    with pytest.raises(InvalidStateError, match=r"\n  many\.1: Input should be a valid number"):
        schema.check({**before, "many": b'[1.5,"x"]'}, before)
