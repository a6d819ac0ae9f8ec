"""Payloads: checked before the start, typed for the code, the same from both sides."""

# Every spelling of an annotation is a case of its own.
# ruff: noqa: UP007, UP045

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, NotRequired, Optional, TypedDict, Union
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, field_validator
from pydantic_core import to_jsonable_python

from polos.errors import InvalidPayloadError, WorkflowDefinitionError
from polos.workflow.definition import Workflow
from polos.workflow.payload import load, prepare


class Item(BaseModel):
    name: str
    price: float = 0.0


class Order(BaseModel):
    items: list[Item]
    at: datetime | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Aliased(BaseModel):
    first_name: str = Field(alias="firstName")


class WithDate(BaseModel):
    at: date


class AllDefaults(BaseModel):
    x: int = 0


class Child(Closed):
    b: int = 0


class Numbers(RootModel[list[int]]):
    pass


@dataclass
class Point:
    x: int
    at: date = date(2020, 1, 1)
    tags: list[str] = field(default_factory=list)


class Row(TypedDict):
    a: int
    at: date
    note: NotRequired[str]


class Tree(TypedDict):
    value: int
    children: "list[Tree]"


class Pair(msgspec.Struct):
    a: int
    at: date | None = None
    raw: bytes = b""


@dataclass
class Holder:
    pair: Pair


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


def made(hint: Any, **options: Any) -> Workflow[Any]:
    def func(ctx, payload):
        pass

    func.__annotations__["payload"] = hint
    return Workflow("w", func, **options)


DAY = date(2021, 2, 3)
NOON = datetime(2021, 2, 3, 12)  # noqa: DTZ001
ID = UUID(int=7)

# Annotation, what a caller gives, what the code gets.
ACCEPTED: list[tuple[Any, Any, Any]] = [
    (Order, Order(items=[]), Order(items=[])),
    (Order, {"items": [{"name": "a", "price": "1.5"}]}, Order(items=[Item(name="a", price=1.5)])),
    (Order, {"items": [Item(name="a")]}, Order(items=[Item(name="a")])),
    (Order, {"items": [], "unknown": 1}, Order(items=[])),
    (Open, {"a": 1, "b": 2}, Open(a=1, b=2)),  # type: ignore[call-arg]
    (Strict, {"at": NOON}, Strict(at=NOON)),
    (Strict, {"at": "2021-02-03T12:00:00"}, Strict(at=NOON)),
    (Aliased, {"firstName": "A"}, Aliased(firstName="A")),
    (Aliased, {"first_name": "A"}, Aliased(firstName="A")),
    (Closed, Open(a=1), Closed(a=1)),
    (Order, Point(1), None),
    (Closed, Point(1), None),
    (Item, Pair(1), None),
    (AllDefaults, Point(3), AllDefaults(x=3)),
    (Point, AllDefaults(x=3), Point(3)),
    (Numbers, [1, "2"], Numbers([1, 2])),
    (dict, {"a": NOON}, {"a": NOON}),
    (dict, {}, {}),
    (dict, Order(items=[], at=NOON), {"items": [], "at": "2021-02-03T12:00:00"}),
    (dict, Point(1), {"x": 1, "at": "2020-01-01", "tags": []}),
    (dict, Pair(1), {"a": 1, "at": None, "raw": ""}),
    (dict[str, int], {"a": "1"}, {"a": 1}),
    (dict[int, str], {"1": "a"}, {1: "a"}),
    (Point, Point(1), Point(1)),
    (Point, {"x": "1", "at": "2021-02-03"}, Point(1, DAY)),
    (list[Point], [{"x": 1}], [Point(1)]),
    (Row, {"a": "1", "at": "2021-02-03"}, {"a": 1, "at": DAY}),
    (Row, {"a": 1, "at": DAY, "note": "n"}, {"a": 1, "at": DAY, "note": "n"}),
    (Tree, {"value": 1, "children": [{"value": 2, "children": []}]}, None),
    (Pair, Pair(1), Pair(1)),
    (Pair, {"a": "1", "at": "2021-02-03", "raw": "AQI="}, Pair(1, DAY, b"\x01\x02")),
    (Pair, Item(name="n"), None),
    (list[Pair], [{"a": 1}, Pair(2)], [Pair(1), Pair(2)]),
    (Optional[Pair], {"a": 1}, Pair(1)),
    (Pair | int, 5, 5),
    (Holder, {"pair": {"a": 1}}, Holder(Pair(1))),
    (Holder, Holder(Pair(1)), Holder(Pair(1))),
    (list, (1, 2), [1, 2]),
    (list[int], ["1"], [1]),
    (tuple[int, str], [1, "a"], (1, "a")),
    (set[int], [1, 1], {1}),
    (str, "", ""),
    (int, "5", 5),
    (int, 0, 0),
    (float, 1, 1.0),
    (bool, False, False),
    (bytes, b"x", b"x"),
    (datetime, "2021-02-03T12:00:00", NOON),
    (timedelta, "PT1H", timedelta(hours=1)),
    (Decimal, "1.10", Decimal("1.10")),
    (UUID, str(ID), ID),
    (Color, "red", Color.RED),
    (Color, Color.RED, Color.RED),
    (Level, 1, Level.LOW),
    (Any, {"a": 1}, {"a": 1}),
    (Any, [], []),
    (Any, Order(items=[]), Order(items=[])),
    (object, 5, 5),
    (None, None, None),
    (Optional[Order], None, None),
    (Order | None, {"items": []}, Order(items=[])),
    (Annotated[int, Field(gt=0)], 1, 1),
    (Annotated[Order | dict[str, Any] | None, "note"], None, None),
]

# Unions of classes with dict: a class where the dict has all it needs and nothing else.
UNIONS: list[tuple[Any, Any, Any]] = [
    (union, given, expected)
    for union in (
        Union[WithDate, dict],
        Union[dict, WithDate],
        WithDate | dict[str, Any],
        dict[str, Any] | WithDate | None,
        Annotated[WithDate | Mapping[str, Any], "note"],
    )
    for given, expected in [
        ({"at": "2021-02-03"}, WithDate(at=DAY)),
        ({"at": DAY}, WithDate(at=DAY)),
        (WithDate(at=DAY), WithDate(at=DAY)),
        ({"at": "2021-02-03", "more": 1}, {"at": "2021-02-03", "more": 1}),
        ({"at": "never"}, {"at": "never"}),
        ({"y": 1}, {"y": 1}),
        ({}, {}),
    ]
]
UNIONS += [
    (AllDefaults | dict, {"y": 1}, {"y": 1}),
    (AllDefaults | dict, {"x": "1"}, AllDefaults(x=1)),
    (Open | dict, {"a": 1, "z": 2}, Open(a=1, z=2)),  # type: ignore[call-arg]
    (Point | dict, {"x": 1}, Point(1)),
    (Point | dict, {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    (Pair | dict, {"a": 1}, Pair(1)),
    (Pair | dict, {"a": 1, "z": 2}, {"a": 1, "z": 2}),
    (Closed | WithDate | dict, {"at": "2021-02-03"}, WithDate(at=DAY)),
    (list[WithDate | dict], [{"at": "2021-02-03"}, {"b": 1}], [WithDate(at=DAY), {"b": 1}]),
    (AllDefaults | str | dict, "5", "5"),
    (Order | Item, {"name": "a"}, Item(name="a")),
]


@pytest.mark.parametrize(
    ("hint", "given", "expected"), [case for case in ACCEPTED if case[2] is not None] + UNIONS
)
def test_a_payload_becomes_what_the_annotation_says(hint: Any, given: Any, expected: Any) -> None:
    workflow = made(hint)
    ready = prepare(workflow, given)
    assert ready == expected
    assert type(ready) is type(expected)
    assert prepare(workflow, ready) == expected
    assert load(workflow, ready) == expected


def plain(value: Any) -> Any:
    def dump(value: Any) -> Any:
        return msgspec.to_builtins(value)

    return json.loads(json.dumps(to_jsonable_python(value, by_alias=False, fallback=dump)))


@pytest.mark.parametrize(
    ("hint", "given", "expected"),
    [case for case in ACCEPTED if case[0] not in (Any, dict, object)] + UNIONS,
)
def test_the_code_gets_from_plain_json_what_was_prepared(
    hint: Any, given: Any, expected: Any
) -> None:
    workflow = made(hint)
    if expected is None and given is not None and hint is not Tree:
        with pytest.raises(InvalidPayloadError):
            prepare(workflow, given)
        return
    ready = prepare(workflow, given)
    loaded = load(workflow, plain(ready))
    assert loaded == ready
    assert type(loaded) is type(ready)


REFUSED: list[tuple[Any, Any, str]] = [
    (Order, {}, "expected Order, got dict\n  items: Field required$"),
    (Order, {"items": [{"name": 1}]}, r"items.0.name: Input should be a valid string \(got int\)"),
    (Order, 5, "expected Order, got int"),
    (Order, [], "expected Order, got list"),
    (Order, Item(name="a"), "expected Order, got Item\n  .*Order"),
    (Order, {"items": object()}, "items: Input should be a valid list"),
    (Order, object(), "expected Order, got object"),
    (Order, {"items": float("nan")}, "items: Input should be a valid list"),
    (Closed, {"a": 1, "b": 2}, r"b: Extra inputs are not permitted \(got int\)"),
    (Strict, {"at": "never"}, "at: Input should be a valid datetime"),
    (dict, "text", "expected dict, got str"),
    (dict[str, int], {"a": "x"}, r"expected dict\[str, int\], got dict\n  a: .*integer"),
    (str, 5, "expected str, got int"),
    (int, "x", "expected int, got str"),
    (list[Point], [{"y": 1}], r"expected list\[Point\].*\n  0.x: Field required"),
    (Point, {"x": "a"}, "x: Input should be a valid integer"),
    (Row, {"a": 1}, "at: Field required"),
    (Pair, {}, "expected Pair, got dict\n  .*missing required field `a`"),
    (Holder, {"pair": {}}, r"missing required field `a` - at `\$.pair`"),
    (Color, "blue", "expected Color, got str\n  Input should be 'red'"),
    (WithDate | dict, 5, r"expected WithDate \| dict, got int"),
    (dict[str, int] | WithDate, {"z": "x"}, r"expected dict\[str, int\] \| WithDate"),
    (Annotated[int, Field(gt=0)], 0, "expected int, got int\n  .*greater than 0"),
]


@pytest.mark.parametrize(("hint", "given", "message"), REFUSED)
@pytest.mark.parametrize("function", [prepare, load])
def test_a_payload_that_does_not_fit_names_every_bad_field(
    function: Any, hint: Any, given: Any, message: str
) -> None:
    with pytest.raises(InvalidPayloadError, match=message) as caught:
        function(made(hint), given)
    assert str(caught.value).startswith("Invalid payload for workflow 'w': expected ")
    assert isinstance(caught.value, ValueError)


def test_a_message_shows_no_values_and_not_all_of_a_thousand_faults() -> None:
    with pytest.raises(InvalidPayloadError) as caught:
        prepare(made(list[int]), ["hunter2"] * 1000)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).endswith("and 990 more")


@pytest.mark.parametrize("hint", [Order, dict, int, list[Order], Color, Pair])
@pytest.mark.parametrize("function", [prepare, load])
def test_a_payload_is_required_where_none_does_not_fit(function: Any, hint: Any) -> None:
    with pytest.raises(ValueError, match="'w' requires a payload parameter, but None was provided"):
        function(made(hint), None)


@pytest.mark.parametrize("hint", [Order | None, Optional[dict], Any, None, object])
def test_no_payload_is_needed_where_none_fits(hint: Any) -> None:
    assert prepare(made(hint), None) is None
    assert load(made(hint), None) is None


def test_a_missing_payload_is_a_copy_of_the_default() -> None:
    def func(ctx, payload: dict = {"a": []}) -> None:  # noqa: B006
        pass

    workflow = Workflow("w", func)
    prepare(workflow, None)["a"].append(1)
    assert prepare(workflow, None) == load(workflow, None) == {"a": []}


def test_an_untyped_payload_of_the_constructor_is_required_and_let_through() -> None:
    def func(ctx, payload) -> None:  # type: ignore[no-untyped-def]
        pass

    workflow = Workflow("w", func)
    assert prepare(workflow, 5) == 5
    with pytest.raises(ValueError, match="requires a payload"):
        prepare(workflow, None)


@pytest.mark.parametrize("given", [None, {"a": 1}, Order(items=[]), 5])
def test_a_function_without_payload_parameter_drops_it(given: Any) -> None:
    def func(ctx) -> None:
        pass

    assert prepare(Workflow("w", func), given) is None
    assert load(Workflow("w", func), given) is None


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"batch_timeout_seconds": 5}])
def test_a_batch_of_events_has_events(options: dict[str, Any]) -> None:
    workflow = made(dict, trigger_on_event="topic", **options)
    for given in (None, {}, {"events": None}, 5, []):
        with pytest.raises(ValueError, match="'w' is event-triggered and should have events"):
            prepare(workflow, given)
    assert prepare(workflow, {"events": []}) == {"events": []}
    assert load(workflow, {"other": 1}) == {"other": 1}


def test_a_single_event_comes_flat() -> None:
    assert prepare(made(dict, trigger_on_event="topic"), {"id": "e"}) == {"id": "e"}


def test_a_subclass_stays_what_it_is() -> None:
    assert prepare(made(Closed), Child(a=1, b=2)) == Child(a=1, b=2)


def test_special_floats_and_secrets_come_back() -> None:
    ready = prepare(made(dict), Item(name="a", price=float("inf")))
    assert ready == {"name": "a", "price": float("inf")}

    class Login(BaseModel):
        password: SecretStr

    assert prepare(made(Login), {"password": "x"}).password.get_secret_value() == "x"


def test_an_error_in_a_validator_of_the_users_is_theirs() -> None:
    class Broken(BaseModel):
        a: int

        @field_validator("a")
        @classmethod
        def check(cls, value: int) -> int:
            raise KeyError(value)

    with pytest.raises(KeyError):
        prepare(made(Broken), {"a": 1})


def test_a_type_with_a_field_that_nobody_can_read_is_named_at_first_use() -> None:
    class Opaque:
        pass

    @dataclass
    class Outer:
        inner: Opaque

    with pytest.raises(WorkflowDefinitionError, match="'w': the payload type Outer cannot be read"):
        prepare(made(Outer), {"inner": 1})


def test_the_validator_is_built_once() -> None:
    workflow = made(list[Order])
    prepare(workflow, [])
    adapter = workflow.payload_adapter
    load(workflow, [])
    assert workflow.payload_adapter is adapter
