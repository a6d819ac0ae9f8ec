"""State schemas with fields that could not be read back are refused, or warned about."""

import datetime as dt
import enum
import threading
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pytest
from pydantic import (
    AnyUrl,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    IPvAnyAddress,
    Json,
    PlainSerializer,
    Secret,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    Tag,
    create_model,
    model_serializer,
)

from polos.core.merge import Path as MergePath
from polos.core.merge import Sort
from polos.errors import StateSchemaError
from polos.workflow import model_schema, state_rules
from polos.workflow.state import StateSchema, WorkflowState


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.Enum):
    A = "a"


class Pair(enum.Enum):
    A = (1, 2)


class Half(enum.Enum):
    A = 0.5


class Thing:
    """A class that pydantic knows nothing of."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.n == self.n

    __hash__ = None  # type: ignore[assignment]


class Key(BaseModel):
    model_config = ConfigDict(frozen=True)
    n: int = 0


class Holder(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    inner: Any = None
    hidden: str = Field(default="", exclude=True)


class Node(BaseModel):
    children: list["Node"] = []
    call: Callable[[], None] | None = None


class Node2(BaseModel):
    children: list["Node2"] = []


class Extended(BaseModel):
    n: int = 1

    @model_serializer(mode="wrap")
    def _more(self, write: Any) -> dict[str, Any]:
        return {"more": True, **write(self)}


class Cat(BaseModel):
    name: str = ""


class Dog(BaseModel):
    name: str = ""


class Bird(BaseModel):
    wings: int = 2


@dataclass
class Half1:
    a: int
    b: InitVar[int] = 0


class Point(NamedTuple):
    x: int
    level: Level


def schema_of(annotation: Any, default: Any = ...) -> StateSchema:
    model: Any = create_model(
        "Made",
        __config__=ConfigDict(arbitrary_types_allowed=True),
        field=(annotation, default),
    )
    return StateSchema(model)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Callable[[int], int], "field: a function cannot be written"),
        (list[Callable[[], None]] | None, r"field\[\]: a function"),
        (type[int], "field: a class cannot be written"),
        (Iterable[int], "field: an iterator is used up"),
        (Thing, "field: JSON does not hold objects of Thing"),
        (dict[str, threading.Thread], r"field\[\]: JSON does not hold objects of Thread"),
        (SecretStr, "field: a secret is masked"),
        (list[SecretBytes], r"field\[\]: a secret is masked"),
        (Secret[int] | None, "field: a secret is masked"),
        (Annotated[str, Field(exclude=True)], "field: the value is excluded"),
        (dict[str, Holder], r"field\[\].hidden: the value is excluded"),
        (Node, r"field.call: a function"),
        (SerializeAsAny[Cat], "field: subclasses are written with more than is read"),
        (list[SerializeAsAny[Node2]], r"field\[\]: subclasses are written"),
        (Half1, r"field.b: the dataclass does not keep"),
        (Pair, "field: JSON does not hold all values of Pair"),
        (dict[tuple[int, int], str], "field: JSON has no keys of type tuple"),
        (dict[Key, str], "field: JSON has no keys of type Key"),
        (dict[int | None, str], "field: JSON has no keys of type nullable"),
        (dict[Literal[1, 2], str], "field: JSON has no keys of type literal"),
        (dict[Half, str], "field: JSON has no keys of type Half"),
    ],
)
def test_a_field_that_cannot_come_back_is_refused(annotation: Any, message: str) -> None:
    with pytest.raises(StateSchemaError, match=rf"(?s)schema Made has fields.*\n  {message}"):
        schema_of(annotation)


def test_all_such_fields_are_named_at_once() -> None:
    class Bad(WorkflowState):
        key: SecretStr = SecretStr("")
        call: Callable[[], None] | None = None
        fine: int = 0

    with pytest.raises(StateSchemaError) as caught:
        StateSchema(Bad)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()[1:]] == [
        "  key",
        "  call",
    ]


@pytest.mark.parametrize(
    "annotation",
    [
        Any,
        object,
        dict,
        list,
        tuple,
        set,
        dict[str, Any],
        Mapping[str, int],
        Sequence[int],
        deque[int],
        defaultdict[str, list[int]],
        int | str | None,
        int | float | bool,
        Decimal | float,
        dict[int, str],
        dict[UUID, str],
        dict[dt.date, str],
        dict[Level, str],
        dict[Name, Name],
        Level,
        Half,
        Path,
        AnyUrl,
        IPvAnyAddress,
        Json[list[int]],
        Point,
        complex,
        bytes,
        Cat | Bird | None,
        Cat | Point | None,
        list[Point | Cat],
        Annotated[
            Annotated[Cat, Tag("c")] | Annotated[Dog, Tag("d")], Discriminator(lambda _: "c")
        ],
    ],
)
def test_a_field_that_comes_back_is_fine(annotation: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema_of(annotation)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (dt.datetime | str, "field: datetime and str look alike"),
        (list[bytes | UUID], r"field\[\]: bytes and uuid look alike"),
        (list[int] | set[int], "field: list and set look alike"),
        (Cat | Dog, "field: Cat and Dog look alike"),
        (Cat | dict[str, int], "field: Cat and dict look alike"),
        (Name | str, "field: Name and str look alike"),
        (dict[int | str, int], "field: int and str look alike"),
        (Extended, "field: it cannot be told"),
        (list[Extended], r"field\[\]: it cannot be told"),
        (
            Annotated[Thing, PlainSerializer(lambda thing: thing.n), BeforeValidator(Thing)],
            "field: it cannot be told whether what its serializer writes",
        ),
    ],
)
def test_a_field_that_may_not_come_back_is_warned_about(annotation: Any, message: str) -> None:
    with pytest.warns(UserWarning, match=rf"(?s)schema Made has fields.*\n  {message}"):
        schema_of(annotation)


def test_a_deque_that_loses_its_limit_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"(?s)its default deque\(\[\], maxlen=3\) comes back as"):
        schema_of(deque[int], deque(maxlen=3))


def test_a_default_that_comes_back_proves_a_serializer() -> None:
    of_thing = [PlainSerializer(lambda thing: thing.n), BeforeValidator(as_thing)]
    annotation = Annotated[Thing, *of_thing]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = schema_of(annotation, Thing(3))
    assert schema.dump(schema.initial()) == {"field": b"3"}


def test_what_is_a_set_by_one_choice_of_a_union_may_be_a_list() -> None:
    class One(BaseModel):
        kind: Literal["one"] = "one"
        values: set[int] = set()

    class Other(BaseModel):
        kind: Literal["other"] = "other"
        values: list[int] = []

    class Whole(WorkflowState):
        either: Annotated[One | Other, Discriminator("kind")] = One()
        both: tuple[One, One] = (One(), One())

    sort = state_rules.examine(model_schema.read(Whole)).sort
    assert sort(["either", "values"]) == ""
    assert sort(["both", 0, "values"]) == "members"
    assert sort(["both", 1, "values"]) == "members"
    schema = StateSchema(Whole)
    before = schema.dump(Whole())
    after = schema.dump(Whole(either=Other(values=[2, 1, 2])))
    assert schema.merged(before, schema.change(before, after)) == after


def test_a_field_keeps_its_sort_beside_extra_ones() -> None:
    class Whole(WorkflowState):
        model_config = ConfigDict(extra="allow")
        __pydantic_extra__: dict[str, set[int]]
        values: list[int] = []

    sort = state_rules.examine(model_schema.read(Whole)).sort
    assert sort(["values"]) == ""
    assert sort(["other"]) == "members"


def test_schemas_that_hold_each_other_are_examined_in_time() -> None:
    names = [f"N{n}" for n in range(9)]
    fields: Any = {f"to{n}": (f"list[{name}]", []) for n, name in enumerate(names)}
    made: dict[str, Any] = {name: create_model(name, **fields) for name in names}
    for model in made.values():
        model.model_rebuild(_types_namespace=made)
    whole = create_model("Whole", __base__=WorkflowState, start=(made["N0"], made["N0"]()))
    findings = state_rules.examine(model_schema.read(whole))
    assert findings.refused == []
    assert len(findings.arrays) < 10_000


def as_thing(value: Any) -> Any:
    return Thing(value) if isinstance(value, int) else value


def test_a_serializer_of_a_nested_class_may_write_more_than_is_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schema = schema_of(Extended, Extended())
    assert schema.dump(schema.initial()) == {"field": b'{"more":true,"n":1}'}


def test_a_default_that_does_not_come_back_refutes_a_serializer() -> None:
    annotation = Annotated[int, PlainSerializer(lambda value: value + 1)]
    with pytest.raises(StateSchemaError, match="field: its default 1 comes back as 2"):
        schema_of(annotation, 1)


def test_a_default_that_comes_back_as_something_else_is_warned_about() -> None:
    with pytest.warns(UserWarning, match=r"field: its default \(1, 2\) comes back as \[1, 2\]"):
        schema_of(Any, (1, 2))
    with pytest.warns(UserWarning, match=r"field: its default \[\] comes back as set\(\)"):
        schema_of(set[int], [])


def test_a_default_that_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(StateSchemaError, match="field: its default cannot be recorded"):
        schema_of(Any, object())


def test_what_json_does_not_show_of_a_place_is_known() -> None:
    class Part(BaseModel):
        level: Level = Level.LOW
        spent: Decimal = Decimal(0)
        tags: set[str] = set()
        count: int = 0

    class Whole(WorkflowState):
        parts: list[Part] = []
        more: dict[str, Part] = {}
        pair: tuple[int, Decimal] = (0, Decimal(0))
        step: Literal[1, 2] = 1
        name: Name = Name.A
        spent: Decimal | None = None

    sort = state_rules.examine(model_schema.read(Whole)).sort
    expected: list[tuple[MergePath, Sort]] = [
        (["parts"], "names"),
        (["parts", 3, "level"], "names"),
        (["parts", 3, "spent"], "decimal"),
        (["parts", 3, "tags"], "members"),
        (["parts", 3, "tags", 0], ""),
        (["parts", 3, "count"], ""),
        (["more", "x"], "names"),
        (["more", "x", "spent"], "decimal"),
        (["pair", 0], ""),
        (["pair", 1], "decimal"),
        (["step"], "names"),
        (["name"], ""),
        (["spent"], "decimal"),
    ]
    assert [(path, sort(path)) for path, _ in expected] == expected
