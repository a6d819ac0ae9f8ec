"""Random nested values of every kind come back as they were, types included."""

import dataclasses
import enum
import json
import math
import pathlib
import zoneinfo
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel

from polos.core.codec import Codec


class Color(enum.Enum):
    RED = "red"
    NONE = None
    PAIR = (1, 2)
    HALF = 0.5


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Flat(BaseModel):
    """One that is trusted without a proof."""

    count: int = 0
    name: str = ""
    ratio: float = 0.0
    at: datetime | None = None
    color: Level = Level.LOW
    parts: list[int] = []


class Any_(BaseModel):
    """One whose JSON alone seldom loads back."""

    content: Any = None
    blob: bytes = b""
    either: int | str | datetime | None = None
    tags: set[int] = set()
    aliased: int = Field(0, alias="Other")
    nested: Flat | None = None


class Root(RootModel[Any]):
    pass


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any = None


@dataclasses.dataclass(slots=True)
class Total:
    """Its `__init__` cannot set all that it holds."""

    items: list[Any]
    size: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.items = list(self.items)
        self.size = len(self.items)


class Struct(msgspec.Struct, rename="camel"):
    first_one: Any
    second_one: Any = None


class Pair(NamedTuple):
    left: Any
    right: Any


ZONES = [UTC, timezone(timedelta(hours=-3, minutes=-30)), zoneinfo.ZoneInfo("Europe/Berlin"), None]

texts = st.text(max_size=8)
keys = st.one_of(
    texts,
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Color, *Level]),
    st.dates(),
    st.datetimes(),
    st.decimals(allow_nan=False),
    st.binary(max_size=4),
    st.builds(pathlib.Path, st.sampled_from(["a", "a/b", "1"])),
    st.tuples(st.integers(), texts),
    st.frozensets(st.integers(), max_size=3),
    st.builds(Point, st.integers()),
)
leaves = st.one_of(
    keys,
    st.floats(),
    st.integers(min_value=10**5000, max_value=10**5001),
    st.times(),
    st.timedeltas(),
    st.datetimes(timezones=st.sampled_from(ZONES)),
    st.sampled_from([Permission(0), Permission.READ, Permission.READ | Permission.WRITE]),
    st.sampled_from([None, False, 0, 0.0, -0.0, "", b"", (), Decimal("-0"), timedelta()]),
    st.builds(
        Flat,
        count=st.integers(),
        name=texts,
        ratio=st.floats(),
        at=st.none() | st.datetimes(timezones=st.just(UTC)),
        color=st.sampled_from(Level),
        parts=st.lists(st.integers(), max_size=2),
    ),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(texts, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        st.builds(Point, inner, inner),
        st.builds(Total, st.lists(inner, max_size=3)),
        st.builds(Struct, inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Root, inner),
        st.builds(
            Any_,
            content=inner,
            blob=st.binary(max_size=4),
            either=st.none() | st.integers() | texts | st.datetimes(),
            tags=st.sets(st.integers(), max_size=3),
            Other=st.integers(),
            nested=st.none() | st.builds(Flat, count=st.integers()),
        ),
    )


# Not `st.recursive`: its description of itself grows to megabytes here.
values: st.SearchStrategy[Any] = st.deferred(lambda: leaves | containers(values))


def seen(value: Any) -> Any:  # noqa: PLR0911 - one for each kind
    """Return what `value` is made of, in a form that `==` compares strictly."""
    kind = type(value)
    if isinstance(value, float) and not isinstance(value, enum.Enum):
        return (kind, "nan") if math.isnan(value) else (kind, value, math.copysign(1, value))
    if isinstance(value, dict):
        return kind, [(seen(key), seen(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return kind, [seen(item) for item in value]
    if isinstance(value, set | frozenset):
        return kind, sorted(repr(seen(item)) for item in value)
    if isinstance(value, BaseModel):
        return kind, seen(dict(value.__dict__))
    if dataclasses.is_dataclass(value):
        return kind, [seen(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, msgspec.Struct):
        return kind, seen(msgspec.structs.asdict(value))
    if isinstance(value, datetime | time):
        return kind, value.isoformat(), getattr(value.tzinfo, "key", None)
    if isinstance(value, Decimal):
        return kind, str(value)
    return kind, value


@given(values)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    codec = Codec()
    body, descriptor = codec.encode(value)
    assert seen(codec.decode(body, descriptor)) == seen(value)


@given(values)
def test_another_process_that_loaded_the_modules_reads_it_too(value: Any) -> None:
    body, descriptor = Codec().encode(value)
    assert seen(Codec().decode(body, descriptor)) == seen(value)


@given(values)
def test_what_came_back_is_encoded_the_same(value: Any) -> None:
    codec = Codec()
    encoded = codec.encode(value)
    assert codec.encode(codec.decode(*encoded)) == encoded


@given(values)
def test_body_and_descriptor_are_json(value: Any) -> None:
    body, descriptor = Codec().encode(value)
    json.loads(body)
    assert descriptor is None or json.loads(descriptor) is not None


plain: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | texts
        | st.lists(plain, max_size=4)
        | st.dictionaries(texts, plain, max_size=4)
    )
)


@given(plain)
def test_plain_json_needs_no_descriptor(value: Any) -> None:
    codec = Codec()
    body, descriptor = codec.encode(value)
    assert descriptor is None
    assert seen(codec.decode(body, None)) == seen(value)


@given(st.lists(st.builds(Point, st.datetimes(), st.uuids()), min_size=1))
def test_the_descriptor_does_not_grow_with_a_list_of_one_shape(points: list[Point]) -> None:
    assert Codec().encode(points).type == Codec().encode(points[:1]).type
