"""What a value looks like when stored, what it comes back as, and what is refused."""

import collections
import dataclasses
import enum
import json
import logging
import math
import pathlib
import sys
import types
import typing
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from polos.core.codec import Codec, Encoded
from polos.errors import EncodeError, UsageError

T = TypeVar("T")
HERE = __name__
REPORT = '{"done":0,"at":"2026-01-02T00:00:00Z"}'
BERLIN = ZoneInfo("Europe/Berlin")
EARLY = datetime.fromisoformat("0001-01-01T00:00:00")
LATE = datetime.fromisoformat("9999-12-31T23:59:59.999999")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 1


class Word(enum.StrEnum):
    YES = "yes"


class Odd(enum.Enum):
    PAIR = (1, 2)
    NONE = None
    NAN = math.nan
    BARE = object()


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Report(BaseModel):
    done: int = 0
    at: datetime = datetime(2026, 1, 2, tzinfo=UTC)


class Detailed(Report):
    note: str = ""


class Line(BaseModel):
    report: Report = Report()
    reports: list[Report] = []
    either: Report | Detailed | None = None


class Wrapper(BaseModel):
    report: Report


class Branch(BaseModel):
    branches: list["Branch"] = []


class Limited(BaseModel):
    n: int = Field(default=0, ge=0)


class Grid(BaseModel):
    cells: dict[tuple[int, int], int]


class Loose(BaseModel):
    content: Any = None


class Blob(BaseModel):
    data: bytes


class Aliased(BaseModel):
    """Each field has the name of the other one outside."""

    one: int = Field(alias="two")
    two: int = Field(alias="one")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int = 0


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    at: datetime
    tags: set[int]
    pair: tuple[int, str]


class Ratio(BaseModel):
    ratio: float | None = None


class Computed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int = 2

    @computed_field
    @property
    def area(self) -> int:
        return self.side**2


class Rounded(BaseModel):
    price: float

    @field_serializer("price")
    def write_price(self, price: float) -> str:
        return f"{price:.1f} €"


class Splitting(BaseModel):
    """Does not accept its own output."""

    parts: list[str]

    @field_validator("parts", mode="before")
    @classmethod
    def split(cls, value: str) -> list[str]:
        return value.split(",")


class Counting(BaseModel):
    """Changes at every validation."""

    loads: int = 0
    _hidden: int = PrivateAttr(default=7)

    @model_validator(mode="after")
    def count(self) -> "Counting":
        self.loads += 1
        return self


class Excluding(BaseModel):
    kept: int = 0
    client: Any = Field(default=None, exclude=True)


class Secret(BaseModel):
    password: SecretStr


class Link(BaseModel):
    url: AnyUrl
    rate: Decimal
    kind: Literal["a", "b"] = "a"
    either: int | str = 0
    when: date | datetime | None = None
    sizes: dict[int, Level] = {}


class Node(BaseModel):
    value: Any = None
    next: "Node | None" = None


class Box(BaseModel, Generic[T]):
    content: T


class Names(RootModel[list[str]]):
    pass


class Maybe(RootModel[int | None]):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: Any = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    at: datetime
    tags: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Crowded:
    n: int

    def __hash__(self) -> int:
        return 0


@dataclasses.dataclass
class Counted:
    """Its `__post_init__` must not run again."""

    items: list[int]
    size: int = dataclasses.field(init=False)
    start: dataclasses.InitVar[int] = 0

    def __post_init__(self, start: int) -> None:
        self.items.append(start)
        self.size = len(self.items)


@dataclasses.dataclass
class Locked:
    """Its `lock` is no field."""

    size: int

    def __post_init__(self) -> None:
        self.lock = object()


@dataclasses.dataclass
class Started:
    """Cannot be made without something that it does not hold."""

    n: int
    start: dataclasses.InitVar[int]


@dataclasses.dataclass
class Found:
    n: int
    at: int = dataclasses.field(default=0, init=False)


@dataclasses.dataclass
class Bumped:
    """Is made of other data than it holds."""

    size: int

    def __post_init__(self) -> None:
        self.size += 1


@pydantic_dataclass
class Checked:
    size: int
    at: datetime | None = None


class Struct(msgspec.Struct, rename="camel"):
    first_name: str
    born_at: date | None = None
    extra: Any = msgspec.UNSET


class Growing(msgspec.Struct):
    items: list[int]

    def __post_init__(self) -> None:
        self.items = [*self.items, 0]


class Pair(NamedTuple):
    left: Any
    right: Any = None


class Outer:
    class Inner(BaseModel):
        n: int = 0


class Mapping(TypedDict):
    report: Report


def there_and_back(value: Any) -> Any:
    codec = Codec()
    return codec.decode(*codec.encode(value))


def moved(name: str, module: str, *, base: type = BaseModel, **fields: Any) -> Any:
    """Make a class that says it comes from another module."""
    annotations = {field: type(default) for field, default in fields.items()}
    fields = {"__annotations__": annotations, **fields}
    return type(base)(name, (base,), {"__module__": module, "__qualname__": name, **fields})


def gone(**fields: Any) -> Any:
    """Return a dataclass instance whose class no other codec will find."""
    return dataclasses.make_dataclass("Gone", fields, namespace={"__module__": "gone"})(**fields)


# ---- what is stored


@pytest.mark.parametrize(
    ("value", "body", "descriptor"),
    [
        (None, "null", None),
        (True, "true", None),
        (0, "0", None),
        (10**30, str(10**30), None),
        (-0.0, "-0.0", None),
        (math.inf, "Infinity", None),
        ("ä\0\n", '"ä\\u0000\\n"', None),
        ({"a": [1, {"b": None}]}, '{"a":[1,{"b":null}]}', None),
        ([], "[]", None),
        ((), "[]", "tuple"),
        ((1, (2,)), "[1,[2]]", {"is": "tuple", "at": [["tuple", [1]]]}),
        ({3, 20, 1}, "[1,3,20]", "set"),
        (frozenset({"b", "a"}), '["a","b"]', "frozenset"),
        (b"\xff\0", '"/wA="', "bytes"),
        (Decimal("1.50"), '"1.50"', "decimal"),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"', "uuid"),
        (date(2026, 1, 2), '"2026-01-02"', "date"),
        (time(3, 4), '"03:04:00"', "time"),
        (timedelta(days=1, seconds=2), '"P1DT2S"', "timedelta"),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00+00:00"', "datetime"),
        (
            datetime(2026, 7, 2, tzinfo=BERLIN),
            '"2026-07-02T00:00:00+02:00"',
            {"is": "datetime", "tz": "Europe/Berlin"},
        ),
        (pathlib.Path("a/b"), '"a/b"', "path"),
        (pathlib.PureWindowsPath("a\\b"), '"a\\\\b"', "windowspath"),
        ({1: "a", 2: "b"}, '{"1":"a","2":"b"}', {"keys": {"*": "json"}}),
        ({1: "a", "n": "b"}, '{"1":"a","n":"b"}', {"keys": {"at": [["json", [0]]]}}),
        (
            {None: 1, (1, 2): 2},
            '{"null":1,"[1,2]":2}',
            {"keys": {"at": [["json", [0]], [{"is": "json", "of": "tuple"}, [1]]]}},
        ),
        (
            {UUID(int=1): date(2026, 1, 2)},
            '{"00000000-0000-0000-0000-000000000001":"2026-01-02"}',
            {"*": "date", "keys": {"*": "uuid"}},
        ),
        (
            {"a": 1, pathlib.Path("a"): 2},
            '[["a",1],["a",2]]',
            {"is": "dict", "at": [[{"at": [["path", [0]]]}, [1]]]},
        ),
        (Color.RED, '"red"', f"{HERE}:Color"),
        (Level.LOW, "0", f"{HERE}:Level"),
        (Access.READ | Access.WRITE, "3", f"{HERE}:Access"),
        (Odd.PAIR, '"PAIR"', {"is": f"{HERE}:Odd", "how": "name"}),
        (Report(done=1), '{"done":1,"at":"2026-01-02T00:00:00Z"}', f"{HERE}:Report"),
        (Aliased(two=1, one=2), '{"one":1,"two":2}', f"{HERE}:Aliased"),
        ({"m": Report()}, f'{{"m":{REPORT}}}', {"*": f"{HERE}:Report"}),
        ([Report(), None, Report()], f"[{REPORT},null,{REPORT}]", {"*": f"{HERE}:Report"}),
        ([1, Report(), Report()], f"[1,{REPORT},{REPORT}]", {"at": [[f"{HERE}:Report", [1, 2]]]}),
        (
            Point(1, date.min),
            '{"x":1,"y":"0001-01-01"}',
            {"is": f"{HERE}:Point", "at": [["date", ["y"]]]},
        ),
        (Struct("Ann"), '{"first_name":"Ann","born_at":null}', {"is": f"{HERE}:Struct"}),
        (Pair(1, 2), "[1,2]", {"is": f"{HERE}:Pair", "how": "tuple"}),
        (Computed(side=3), '{"side":3}', f"{HERE}:Computed"),
        (Wrapper(report=Report()), f'{{"report":{REPORT}}}', f"{HERE}:Wrapper"),
        (Outer.Inner(n=1), '{"n":1}', f"{HERE}:Outer.Inner"),
    ],
)
def test_body_and_descriptor(value: Any, body: str, descriptor: Any) -> None:
    encoded = Codec().encode(value)
    assert encoded.body == body
    assert (None if encoded.type is None else json.loads(encoded.type)) == descriptor
    assert there_and_back(value) == value


def test_the_result_is_a_pair() -> None:
    assert Codec().encode(1) == Encoded(body="1", type=None)


def test_ten_thousand_models_cost_one_descriptor() -> None:
    one, many = Codec().encode([Report()]), Codec().encode([Report()] * 10_000)
    assert many.type == one.type == f'{{"*":"{HERE}:Report"}}'
    assert there_and_back([Report()] * 10_000) == [Report()] * 10_000


def test_a_mixed_list_names_each_shape_once() -> None:
    descriptor = Codec().encode([Report(), Color.RED, {1: date.min}] * 1000).type or ""
    assert descriptor.count("Report") == descriptor.count("Color") == 1
    assert descriptor.count("date") == 1


def test_the_text_does_not_depend_on_the_order_of_a_set() -> None:
    # All have one hash, so that the set keeps the order in which they were put in.
    one, two, three = Crowded(1), Crowded(2), Crowded(3)
    assert [*{one, two}] != [*{two, one}]
    assert Codec().encode({one, two, three}) == Codec().encode({three, two, one})
    assert Codec().encode(frozenset({0, 8})) == Codec().encode(frozenset({8, 0}))
    strict = Strict(at=EARLY, tags={8, 0}, pair=(1, "a"))
    assert Codec().encode(strict).body == '{"at":"0001-01-01T00:00:00","tags":[0,8],"pair":[1,"a"]}'


# ---- what comes back


FALSY = [None, False, 0, 0.0, "", b"", (), set(), frozenset(), timedelta(), Decimal(0), [], {}]
NUMBERS = [10**5000, -(10**5000), [10**5000], 1e-320, 1.7976931348623157e308]
NUMBERS += [Decimal("-0"), Decimal("Infinity"), Decimal("1E+400")]
TIMES = [
    LATE,
    datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-3, seconds=7))),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN),
    datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN),
    datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN),  # a time that no clock showed
    time(1, 2, tzinfo=UTC),
    time(1, 2, tzinfo=BERLIN),
    timedelta.max,
    timedelta.min,
    timedelta(microseconds=-1),
]
MEMBERS = [Odd.PAIR, Odd.NONE, Odd.NAN, Odd.BARE, Word.YES, Access(0), Access.READ | Access.WRITE]
PATHS = [pathlib.Path("a"), pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("c:/a")]
CONTAINERS = [
    [None],
    [[]],
    [{}],
    {"": "", "a": None},
    {"is": 1, "*": 2, "at": 3, "keys": 4},
    {Color.RED: 1},
    {Odd.PAIR: 1},
    {1.5: 1, 2: 2},
    {True: 1},
    {None: 0},
    {"null": 1, None: 2},
    {1: 1, "1": 2},
    {frozenset({1}): 1},
    {(1, UUID(int=1)): {EARLY: [Report()]}},
    [(), [()], ((),)],
    [set(), {1}, frozenset({(1, 2)})],
    {"m": Report(), "l": [Report(), {1: [EARLY]}], "t": (Report(), {Color.RED})},
]
MODELS = [
    Report(),
    Line(reports=[Report(), Report(done=2)]),
    Line(either=Detailed(note="x")),
    Line(report=Detailed(note="kept")),
    Wrapper(report=Detailed(note="kept")),
    Grid(cells={(1, 2): 3}),
    Line(reports=[Detailed(note="kept")]),
    [Line(report=Detailed(note="kept"))] * 30,
    Loose(),
    Loose(content=Report()),
    Loose(content=[date.min, {1: 2}, {3}, (4,)]),
    Loose(content=Word.YES),
    Loose(content=Level.HIGH),
    Loose(content=10**5000),
    Report(done=10**5000),
    [Report(done=10**5000)] * 30,
    Blob(data=b"text"),
    Blob(data=b"\xff\xfe"),
    Ratio(ratio=1.5),
    Ratio(),
    Ratio(ratio=math.inf),
    [Ratio(ratio=math.inf)] * 30,
    Open.model_validate({"known": 1, "other": date.min}),
    Open.model_validate({"is": 1, "é": 2}),
    Strict(at=EARLY, tags={3, 1}, pair=(1, "a")),
    Computed(side=3),
    Rounded(price=1.26),
    Splitting.model_validate({"parts": "a,b"}),
    Counting(),
    Counting(loads=3),
    Link(url=AnyUrl("https://example.org"), rate=Decimal("1.10"), either="5", sizes={3: Level.LOW}),
    Link(url=AnyUrl("x:y"), rate=Decimal(1), when=date.min),
    Link(url=AnyUrl("x:y"), rate=Decimal(1), when=LATE),
    Names(["a"]),
    Names([]),
    Maybe(None),
    [Maybe(None), None, Maybe(1)],
    {"a": Maybe(None)},
    Box[int](content=1),
    Box(content=date.min),
    [Box[str](content="")],
    Node(next=Node(value=date.min, next=Node())),
]
RECORDS = [
    Point(1),
    Point(0, Point(1)),
    [Point(1, date.min)],
    Frozen(at=EARLY),
    Frozen(at=LATE, tags=frozenset("ab")),
    Counted([1], 5),
    Bumped(1),
    Started(1, 2),
    Checked(1, EARLY),
    Struct("a"),
    Struct("a", date.min),
    Struct("a", extra=0),
    Growing([1]),
    Pair(1),
    Pair([Pair(1)], date.min),
]


@pytest.mark.parametrize(
    "value",
    [*FALSY, *NUMBERS, *TIMES, *MEMBERS, *PATHS, *CONTAINERS, *MODELS, *RECORDS],
    ids=lambda value: type(value).__name__,
)
def test_it_comes_back_equal_and_of_its_type(value: Any) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    assert back == value
    codec = Codec()
    assert codec.encode(back) == codec.encode(value)


def test_numbers_that_are_not_equal_to_themselves_or_their_sign() -> None:
    assert math.copysign(1, there_and_back(-0.0)) == -1
    assert math.isnan(there_and_back({"a": [math.nan]})["a"][0])
    assert math.isnan(there_and_back(Ratio(ratio=math.nan)).ratio)
    assert there_and_back(Decimal("NaN")).is_nan()


@pytest.mark.parametrize(
    "value",
    [Report(done=True), Ratio.model_construct(ratio=1), Line.model_construct(report=Detailed())],
)
def test_what_was_assigned_without_validation_is_kept(value: Any) -> None:
    back = there_and_back(value)
    assert back == value
    assert type(next(iter(dict(back).values()))).__name__ in ("int", "bool", "float", "Detailed")


def test_a_value_that_breaks_its_own_model_is_kept() -> None:
    report = Report()
    report.done = "many"  # type: ignore[assignment]
    assert there_and_back(report).done == "many"
    limited = Limited()
    limited.n = -1
    assert there_and_back(limited) == limited
    opened = Open.model_validate({"other": date.min})
    opened.known = "many"  # type: ignore[assignment]
    assert there_and_back(opened) == opened
    checked = Checked(1)
    checked.size = "many"  # type: ignore[assignment]
    assert there_and_back(checked) == checked
    found = Found(1)
    found.at = 2
    assert there_and_back(found) == found
    incomplete = Blob.model_construct()
    assert there_and_back(incomplete) == incomplete


@pytest.mark.parametrize("content", [Level.HIGH, Word.YES, True, 1, 1.0, (1,), {1}, b"a", date.min])
def test_a_field_without_a_type_keeps_that_of_its_value(content: Any) -> None:
    assert type(there_and_back(Loose(content=content)).content) is type(content)
    assert type(there_and_back(Loose(content=[content])).content[0]) is type(content)


def test_zones_come_back_as_zones() -> None:
    back = there_and_back(datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=BERLIN))
    assert back.tzinfo is BERLIN
    assert back.fold == 1
    assert back + timedelta(days=180) == datetime(2027, 4, 23, 2, 30, tzinfo=BERLIN)
    unknown = '{"is":"datetime","tz":"Middle/Earth"}'
    assert Codec().decode('"2026-01-02T00:00:00+02:00"', unknown).utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(
    ("value", "decayed"),
    [
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.defaultdict(list, {1: [2]}), {1: [2]}),
        (type("Text", (str,), {})("a"), "a"),
        (type("Number", (int,), {"__repr__": lambda self: "?"})(5), 5),
        (type("Moment", (datetime,), {})(1, 1, 1), EARLY),
        (type("Items", (list,), {})([1]), [1]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_of_plain_types_decay(value: Any, decayed: Any) -> None:
    for sample in (value, Point(1, value), Loose(content=value)):
        back = there_and_back(sample)
        back = back if sample is value else dict(vars(back)).popitem()[1]
        assert back == decayed
        assert type(back) is type(decayed)


def test_what_a_model_keeps_to_itself_is_not_recorded() -> None:
    value = Excluding(kept=1, client=object())
    assert "client" not in Codec().encode(value).body
    assert there_and_back(value) == Excluding(kept=1)
    hidden = Counting()
    hidden._hidden = 8
    assert there_and_back(hidden)._hidden == 7


def test_a_dataclass_is_made_by_its_own_init_where_that_gives_the_same() -> None:
    assert there_and_back(Locked(2)).lock is not None
    assert there_and_back(Counted([1], 5)).items == [1, 5]


def test_encoding_leaves_the_value_alone() -> None:
    value = Counted([1], 5)
    Codec().encode([value, Growing([1])])
    assert value.items == [1, 5]


# ---- which class


def test_a_class_of_a_loaded_module_is_found() -> None:
    body, descriptor = Codec().encode([Report(), Color.RED, Outer.Inner()])
    assert Codec().decode(body, descriptor) == [Report(), Color.RED, Outer.Inner()]


def test_a_local_class_is_found_where_it_was_encoded_or_is_known() -> None:
    class Local(BaseModel):
        n: int = 0

    codec, other = Codec(), Codec()
    encoded = codec.encode(Local(n=1))
    assert codec.decode(*encoded) == Local(n=1)
    other.know(Local | None)
    assert other.decode(*encoded) == Local(n=1)


def test_of_two_classes_of_one_name_the_latest_counts() -> None:
    codec = Codec()
    first, second = moved("Same", "gone", n=0), moved("Same", "gone", n=0)
    for cls in (first, second, first):
        assert type(codec.decode(*codec.encode(cls(n=1)))) is cls


@pytest.mark.parametrize("name", ["gone_module:Report", "gone_module.sub:A.B", "nonsense", ":", ""])
def test_nothing_is_imported(name: str, tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    (tmp_path / "gone_module.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    assert Codec().decode('{"done":1}', json.dumps(name)) == {"done": 1}
    assert Codec().decode('{"done":1}', json.dumps({"is": name})) == {"done": 1}
    assert set(sys.modules) == before


def test_a_lazy_module_is_not_made_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    lazy = types.ModuleType("lazy_module")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy_module", lazy)
    assert Codec().decode("{}", '"lazy_module:Report"') == {}
    assert not asked


@pytest.mark.parametrize(
    "name", ["builtins:eval", "builtins:dict", "os:system", "subprocess:Popen", f"{HERE}:moved"]
)
def test_only_data_classes_are_found(name: str) -> None:
    assert Codec().decode('["echo"]', json.dumps(name)) == ["echo"]
    assert Codec().decode('["echo"]', json.dumps({"is": name})) == ["echo"]


@pytest.mark.parametrize(("old", "new"), [("__main__", "app"), ("app", "__main__"), ("a", "b.c")])
def test_a_moved_class_is_found_among_the_known_ones(old: str, new: str) -> None:
    before, after = moved("Trip", old, legs=0), moved("Trip", new, legs=0)
    encoded = Codec().encode([before(legs=2)])
    codec = Codec()
    codec.know(after)
    assert codec.decode(*encoded) == [after(legs=2)]


def test_of_two_known_classes_of_that_name_none_is_taken() -> None:
    encoded = Codec().encode(moved("Trip", "old", legs=0)(legs=2))
    codec = Codec()
    codec.know(moved("Trip", "one", legs=0))
    codec.know(moved("Trip", "two", legs=0))
    assert codec.decode(*encoded) == {"legs": 2}


def test_a_parametrized_model_is_found_by_its_origin() -> None:
    body, descriptor = Codec().encode(Box[int](content=1))
    assert type(Codec().decode(body, descriptor)) is Box[int]
    back = Codec().decode('{"content":1}', json.dumps(f"{HERE}:Box[Never]"))
    assert type(back) is Box


class Leaf(BaseModel):
    n: int = 0


class Tree(BaseModel):
    leaves: "dict[str, list[Leaf]]" = {}
    children: "list[Tree]" = []


@dataclasses.dataclass
class Holder(Generic[T]):
    tree: Tree
    color: Literal[Color.RED] | None = None


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (Leaf, {"Leaf"}),
        (Tree, {"Tree", "Leaf"}),
        (list[Tree | None] | None, {"Tree", "Leaf"}),
        (Holder[int], {"Holder", "Tree", "Leaf", "Color"}),
        (dict[Color, tuple[Pair, ...]], {"Color", "Pair"}),
        (typing.Annotated[Leaf, "note"], {"Leaf"}),
        (Callable[[Leaf], Struct], {"Leaf", "Struct"}),
        (Mapping, {"Report"}),
        (Box[Leaf], {"Box[Leaf]", "Leaf"}),
        (Literal[Level.LOW, "x"], {"Level"}),
        (None, set()),
        (int, set()),
        ("Leaf", set()),
        (Any, set()),
    ],
)
def test_know_finds_what_is_reachable(annotation: Any, names: set[str]) -> None:
    codec = Codec()
    codec.know(annotation)
    candidates = [Leaf, Tree, Holder, Color, Pair, Struct, Report, Box[Leaf], Level]
    known: set[str] = set()
    for cls in candidates:
        # Not found in `sys.modules`, so found as the namesake of a known one or not at all.
        shape = json.dumps(f"elsewhere:{cls.__qualname__}")
        try:
            found = codec.decode('{"?":[]}', shape) != {"?": []}
        except UsageError:
            found = True
        if found:
            known.add(cls.__qualname__)
    assert known == names


# ---- annotations


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "polos.codec"]


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (moved("Gone", "gone", done=0)(done=3), Report, Report(done=3)),
        (moved("Gone", "gone", done=0)(done=3), Report | None, Report(done=3)),
        ([moved("Gone", "gone", done=0)(done=3)], list[Report], [Report(done=3)]),
        ([moved("Gone", "gone", x=0)(x=3), None], list[Point | None], [Point(3), None]),
        (moved("Gone", "gone", first_name="a")(first_name="b"), Struct, Struct("b")),
        (
            gone(done=1, at=LATE),
            Report,
            Report(done=1, at=LATE),
        ),
        (
            gone(data=b"\xff"),
            Blob,
            Blob(data=b"\xff"),
        ),
        (enum.Enum("Gone", {"A": "red"}, module="gone").A, Color, Color.RED),
    ],
)
def test_data_of_an_unknown_class_takes_the_annotation(
    value: Any, hint: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    body, descriptor = Codec().encode(value)
    back = Codec().decode(body, descriptor, hint)
    assert back == expected
    assert type(back) is type(expected)
    assert not warnings(caplog)


@pytest.mark.parametrize("hint", [None, Any, dict, int, list[Report], Blob, "Report", Struct])
def test_otherwise_it_stays_plain_with_one_warning_for_each_class(
    hint: Any, caplog: pytest.LogCaptureFixture
) -> None:
    codec = Codec()
    body, descriptor = Codec().encode(gone(at=date.max))
    with caplog.at_level(logging.WARNING, "polos.codec"):
        for _ in range(3):
            assert codec.decode(body, descriptor, hint) == {"at": date.max}
        assert codec.decode("[1]", '{"*":"gone:Other"}', hint) == [1]
    assert len(warnings(caplog)) == 2
    assert "'gone:Gone'" in warnings(caplog)[0]


def test_an_unknown_named_tuple_is_a_tuple_still() -> None:
    assert Codec().decode("[1,2]", '{"is":"gone:Pair","how":"tuple"}') == (1, 2)


def test_an_unknown_kind_of_a_later_release_stays_plain(caplog: pytest.LogCaptureFixture) -> None:
    assert Codec().decode('["1/3"]', '{"*":"fraction"}') == ["1/3"]
    assert len(warnings(caplog)) == 1


def test_the_descriptor_goes_before_the_annotation() -> None:
    codec = Codec()
    assert codec.decode(*codec.encode(Report(done=1)), hint=Loose) == Report(done=1)


@pytest.mark.parametrize(
    ("body", "hint", "expected"),
    [
        ('{"done":1}', Report, Report(done=1)),
        ('{"done":1}', Report | None, Report(done=1)),
        ('{"done":1}', typing.Optional[Report], Report(done=1)),  # noqa: UP045
        ('{"x":1}', Point, Point(1)),
        ('{"firstName":"a","bornAt":"2026-01-02"}', Struct, Struct("a", date(2026, 1, 2))),
        ('{"first_name":"a"}', Struct, Struct("a")),
        ('"red"', Color, Color.RED),
        ("0", Level, Level.LOW),
        ("[1,2]", Pair, Pair(1, 2)),
        ('{"content":1}', Box[int], Box[int](content=1)),
        ('{"tree":{}}', Holder[int], Holder(Tree())),
        ("null", Report, None),
        ('{"done":"x"}', Report, {"done": "x"}),
        ('"green"', Color, "green"),
        ('"2026-01-02"', date, "2026-01-02"),
        ('[{"done":1}]', list[Report], [{"done": 1}]),
        ('{"done":1}', Report | Point, {"done": 1}),
        ('{"done":1}', dict[str, int], {"done": 1}),
        ("[1]", typing.Annotated[list[int], []], [1]),  # cannot be hashed
        ('{"done":1}', "Report", {"done": 1}),
    ],
)
def test_plain_data_becomes_the_annotated_class_if_it_fits(
    body: str, hint: Any, expected: Any
) -> None:
    codec = Codec()
    for _ in range(2):
        back = codec.decode(body, None, hint)
        assert back == expected
        assert type(back) is type(expected)


def test_plain_data_may_use_aliases() -> None:
    assert Codec().decode('{"one":1,"two":2}', None, Aliased).one == 2


# ---- classes that changed


@pytest.mark.parametrize(
    ("body", "descriptor", "text"),
    [
        ('{"done":"many"}', f"{HERE}:Report", "done: "),
        ('[{"done":"many"}]', {"*": f"{HERE}:Report"}, "0.done: "),
        ('{"a":{"done":"many"}}', {"*": f"{HERE}:Report"}, "done: "),
        ('{"done":"many"}', {"is": f"{HERE}:Report"}, "done: "),
        ('{"y":1}', {"is": f"{HERE}:Point"}, "'x'"),
        ('{"born_at":null}', {"is": f"{HERE}:Struct"}, "first_name"),
        ('"green"', f"{HERE}:Color", "green"),
        ('"GREEN"', {"is": f"{HERE}:Color", "how": "name"}, "GREEN"),
        ("[1,2,3]", {"is": f"{HERE}:Pair", "how": "tuple"}, "Pair"),
    ],
)
def test_data_that_does_not_fit_any_more(body: str, descriptor: Any, text: str) -> None:
    with pytest.raises(UsageError, match=r"does not fit class .* any more \(.*give new") as caught:
        Codec().decode(body, json.dumps(descriptor), Loose)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("body", "descriptor", "expected"),
    [
        ('{"done":1,"old":2}', f"{HERE}:Report", Report(done=1)),
        ('{"x":1,"old":2}', {"is": f"{HERE}:Point"}, Point(1)),
        ('{"first_name":"a","old":2}', {"is": f"{HERE}:Struct"}, Struct("a")),
        ('{"x":1}', {"is": f"{HERE}:Point", "how": "raw"}, Point(1)),
        ('{"x":1,"y":"2026-01-02"}', f"{HERE}:Point", Point(1, "2026-01-02")),
        (
            '{"first_name":"a","born_at":"2026-01-02"}',
            f"{HERE}:Struct",
            Struct("a", date(2026, 1, 2)),
        ),
        ('{"loads":1}', {"is": f"{HERE}:Counting", "how": "raw"}, Counting()),
        ("{}", {"is": f"{HERE}:Report", "how": "raw"}, Report()),
        ('{"at":1}', {"is": f"{HERE}:Frozen", "how": "raw"}, Frozen(at=typing.cast("Any", 1))),
    ],
)
def test_fields_may_come_and_go_and_kinds_may_change(
    body: str, descriptor: Any, expected: Any
) -> None:
    assert Codec().decode(body, json.dumps(descriptor)) == expected


# ---- what is refused


def circle() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def ring() -> Node:
    node = Node(value=1)
    node.next = Node(next=node)
    return node


def chain(length: int) -> Any:
    value: Any = 0
    for _ in range(length):
        value = [value]
    return value


def linked(length: int) -> Node | None:
    node = None
    for _ in range(length):
        node = Node(value=1, next=node)
    return node


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        (object(), "result", "type object is not data; expected None, bool, int"),
        (3j, "result", "type complex"),
        (Report, "result", f"the class {HERE}:Report"),
        (len, "result", "builtin_function_or_method"),
        ({"a": [0, Point(1, object())]}, "result['a'][1].y", "object"),
        ({"a": [0, Loose(content={"x": {1, 3j}})]}, "result['a'][1].content['x'][3j]", "complex"),
        ((Struct("a", extra=[object()]),), "result[0].extra[0]", "object"),
        ({1: {(2,): object()}}, "result[1][(2,)]", "object"),
        ({3j: 1}, "result[3j]", "complex"),
        (Pair(1, iter([])), "result[1]", "iterator"),
        (Secret(password=SecretStr("x")), "result.password", "SecretStr"),
        (Open.model_validate({"other": object()}), "result.other", "object"),
        ({"a": circle()}, "result['a'][0]", "contains itself"),
        (ring(), "result.next.next", "contains itself"),
        ("a\ud800", "result", r"character 1 of the text is the lone surrogate '\ud800'"),
        ({"a": ["\ud800"]}, "result['a'][0]", "surrogate"),
        ({"\ud800": 1}, "result['\\ud800']", "surrogate"),
        ({"\ud800": date.min}, "result['\\ud800']", "surrogate"),
        (Loose(content="\ud800"), "result.content", "surrogate"),
        (pathlib.Path("\udcff"), "result", "surrogate"),
        (collections.deque([1]), "result", "collections:deque"),
        (ValueError("x"), "result", "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused_with_the_path_to_it(value: Any, path: str, reason: str) -> None:
    with pytest.raises(EncodeError) as caught:
        Codec().encode(value)
    assert caught.value.path.encode("ascii", "backslashreplace").decode() == path
    assert str(caught.value).startswith(f"cannot record {caught.value.path}: ")
    assert reason in str(caught.value)


def test_the_path_starts_with_what_it_is() -> None:
    with pytest.raises(EncodeError) as caught:
        Codec().encode([object()], what="payload")
    assert caught.value.path == "payload[0]"


def branched(length: int) -> Branch:
    branch = Branch()
    for _ in range((length - 1) // 2):  # each is a model and a list
        branch = Branch(branches=[branch])
    return branch


@pytest.mark.parametrize("make", [chain, linked, branched])
def test_depth_has_a_limit_and_what_is_within_it_comes_back(make: Callable[[int], Any]) -> None:
    for depth in range(90, 101):
        assert there_and_back(make(depth)) == make(depth)
    for depth in (104, 150, 190, 240, 500):
        with pytest.raises(EncodeError, match="nested deeper than 100 levels"):
            Codec().encode(make(depth))


def test_a_class_that_cannot_be_made_of_its_fields() -> None:
    class Picky(msgspec.Struct):
        n: int
        touched: bool = False

        def __post_init__(self) -> None:
            if self.touched:
                raise ValueError("made with touched=True")

    picky = Picky(1)
    picky.touched = True
    with pytest.raises(EncodeError, match=r"result\['a'\]: .* cannot be made from its own fields"):
        Codec().encode({"a": picky})


# ---- state


def test_codecs_share_nothing() -> None:
    class Local(BaseModel):
        n: int = 0

    one, other = Codec(), Codec()
    encoded = one.encode(Local(n=1))
    one.know(Local)
    assert other.decode(*encoded) == {"n": 1}


def test_classes_made_on_the_way_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polos.core.codec_write.CLASSES_MAX", 30)
    codec = Codec()
    codec.know(Report)
    for _ in range(100):
        cls = moved("Made", "gone", n=0)
        assert type(codec.decode(*codec.encode([cls(n=1)] * 30))[0]) is cls
    assert len(codec._writer._writers) <= 31
    assert codec.decode('{"done":1}', '"elsewhere:Report"') == Report(done=1)
