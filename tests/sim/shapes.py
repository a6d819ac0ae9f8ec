"""State schemas made at random, and changes of their values made at random.

A `Shape` knows the annotation of a field, makes values for it, and changes one: in place, or by
returning another. All chance comes from the `random.Random` that is handed in, and nothing depends
on the order of a set, so that the same changes can be made to a plain instance.
"""

from __future__ import annotations

import datetime as dt
import math
import string
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, make_dataclass
from decimal import Decimal
from enum import Enum, IntEnum
from random import Random
from typing import Annotated, Any, Generic, Literal, TypeVar, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    computed_field,
    create_model,
)
from typing_extensions import TypedDict

from polos import WorkflowState

T = TypeVar("T")


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Box(BaseModel, Generic[T]):
    content: T
    label: str = ""
    _opened: int = PrivateAttr(default=0)


class Counted(BaseModel):
    """What the nested models of a schema inherit: a private attribute and a computed field."""

    _touched: int = PrivateAttr(default=0)

    @computed_field
    @property
    def size(self) -> int:
        return len(type(self).model_fields)


class Shape:
    """One kind of field."""

    annotation: Any

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__dict__.get('style', '')})"

    def make(self, chance: Random) -> Any:
        """Return a new value."""
        raise NotImplementedError

    def change(self, value: Any, chance: Random) -> Any:
        """Change a value in place and return it, or return another one."""
        return self.make(chance)


@dataclass(repr=False)
class Leaf(Shape):
    """A value without parts."""

    name: str
    annotation: Any
    values: Callable[[Random], Any]
    add: Callable[[Any, Random], Any] | None = None

    def __repr__(self) -> str:
        return self.name

    def make(self, chance: Random) -> Any:
        return self.values(chance)

    def change(self, value: Any, chance: Random) -> Any:
        if self.add is not None and chance.random() < 0.6:
            return self.add(value, chance)
        return self.values(chance)


def text(chance: Random) -> str:
    letters = string.ascii_letters + "éß漢🙂\u0000\"\\\n'[]. "
    return "".join(chance.choice(letters) for _ in range(chance.randint(0, 6)))


def moment(chance: Random) -> dt.datetime:
    hours = chance.choice([None, 0, 2, -7])
    zone = None if hours is None else dt.timezone(dt.timedelta(hours=hours))
    return dt.datetime(2024, chance.randint(1, 12), 29, 1, 2, 3, chance.randint(0, 10**6 - 1), zone)


def span(chance: Random) -> dt.timedelta:
    return dt.timedelta(days=chance.randint(-3, 9), microseconds=chance.randint(0, 10**6))


def number(chance: Random) -> float:
    return chance.choice([0.1, -0.0, 1e300, 5e-324, 1.0, math.inf, -math.inf, chance.random()])


def decimal(chance: Random) -> Decimal:
    return Decimal(chance.choice(["0.10", "1E+3", "-7", "12345678901234567890.000001", "0"]))


def even(value: int) -> int:
    return value - value % 2


HASHABLE = [
    Leaf("int", int, lambda c: c.choice([0, 1, -5, 10**30, c.randint(0, 99)]), lambda v, _: v + 1),
    Leaf("str", str, text, lambda v, c: v + text(c)),
    Leaf("date", dt.date, lambda c: dt.date(2024, 2, c.randint(1, 29))),
    Leaf("uuid", UUID, lambda c: UUID(int=c.getrandbits(128))),
    Leaf("color", Color, lambda c: c.choice(list(Color))),
    Leaf("level", Level, lambda c: c.choice(list(Level))),
]
LEAVES = [
    *HASHABLE,
    Leaf("bool", bool, lambda c: c.random() < 0.5),
    Leaf("float", float, number, lambda v, _: v + 0.5),
    Leaf("decimal", Decimal, decimal, lambda v, _: v + Decimal("0.05")),
    Leaf("moment", dt.datetime, moment, lambda v, c: v + span(c)),
    Leaf("time", dt.time, lambda c: dt.time(c.randint(0, 23), 5, 6, c.randint(0, 10**6 - 1))),
    Leaf("span", dt.timedelta, span, lambda v, c: v + span(c)),
    Leaf("bytes", bytes, lambda c: c.randbytes(c.randint(0, 5)), lambda v, c: v + c.randbytes(2)),
    Leaf("literal", Literal[1, "two"], lambda c: c.choice([1, "two"])),
    Leaf("either", int | str, lambda c: c.choice([3, "3", text(c)])),
    Leaf("even", Annotated[int, AfterValidator(even)], lambda c: 2 * c.randint(0, 9)),
    Leaf("any", Any, lambda c: c.choice([None, 1, "x", [1, {"a": None}], {"b": [2.5, True]}])),
]


@dataclass
class Listed(Shape):
    """A list or a deque."""

    item: Shape
    kind: Any = list

    def __post_init__(self) -> None:
        self.annotation = self.kind[self.item.annotation]

    def make(self, chance: Random) -> Any:
        return self.kind(self.item.make(chance) for _ in range(chance.randint(0, 3)))

    def change(self, value: Any, chance: Random) -> Any:
        at = chance.randrange(len(value)) if value else 0
        how = chance.choice(["append", "insert", "replace", "plus", *(["in"] * 3), "out", "order"])
        if how == "replace":
            return self.make(chance)
        if how == "append":
            value.append(self.item.make(chance))
        elif how == "insert":
            value.insert(at, self.item.make(chance))
        elif how == "plus":
            value += self.make(chance)
        elif not value:
            value.extend(self.make(chance))
        elif how == "in":
            value[at] = self.item.change(value[at], chance)
        elif how == "order":
            _reorder(value, chance)
        else:
            _take_out(value, at, chance)
        return value


def _reorder(value: Any, chance: Random) -> None:
    if isinstance(value, list) and chance.random() < 0.5:
        cast("list[Any]", value).sort(key=repr)
    else:
        value.reverse()


def _take_out(value: Any, at: int, chance: Random) -> None:
    if chance.random() < 0.2:
        value.clear()
    elif isinstance(value, list) and chance.random() < 0.5:
        del value[at:]
    else:
        del value[at]


@dataclass
class Members(Shape):
    """A set or a frozenset."""

    item: Shape
    kind: Any = set

    def __post_init__(self) -> None:
        self.annotation = self.kind[self.item.annotation]

    def make(self, chance: Random) -> Any:
        return self.kind(self.item.make(chance) for _ in range(chance.randint(0, 3)))

    def change(self, value: Any, chance: Random) -> Any:
        others = self.make(chance)
        if self.kind is frozenset:
            return chance.choice([others, value | others, value ^ others])
        how = chance.randrange(5)
        if how == 0:
            value |= others
        elif how == 1:
            value ^= others
        elif how == 2:
            value.add(self.item.make(chance))
        elif how == 3:
            value.difference_update(sorted(value, key=repr)[:1])
        else:
            return others
        return value


@dataclass
class Tupled(Shape):
    """A tuple of given length, or of any."""

    items: list[Shape]
    endless: bool = False

    def __post_init__(self) -> None:
        inner = [item.annotation for item in self.items]
        self.annotation = tuple[(inner[0], ...)] if self.endless else tuple[tuple(inner)]

    def make(self, chance: Random) -> Any:
        items = self.items[:1] * chance.randint(0, 3) if self.endless else self.items
        return tuple(item.make(chance) for item in items)

    def change(self, value: Any, chance: Random) -> Any:
        if self.endless and (not value or chance.random() < 0.5):
            return value + self.make(chance)
        at = chance.randrange(len(value))
        item = self.items[0] if self.endless else self.items[at]
        return (*value[:at], item.change(value[at], chance), *value[at + 1 :])


@dataclass
class Mapped(Shape):
    """A dict."""

    key: Shape
    item: Shape

    def __post_init__(self) -> None:
        self.annotation = dict[self.key.annotation, self.item.annotation]

    def make(self, chance: Random) -> Any:
        size = chance.randint(0, 3)
        return {self.key.make(chance): self.item.make(chance) for _ in range(size)}

    def change(self, value: Any, chance: Random) -> Any:
        how = chance.choice(["new", "update", "in", "in", "out", "clear", "whole", "move"])
        key = chance.choice(list(value)) if value else None
        if how == "whole":
            return self.make(chance)
        if how == "new" or not value:
            value[self.key.make(chance)] = self.item.make(chance)
        elif how == "update":
            value |= self.make(chance)
        elif how == "in":
            value[key] = self.item.change(value[key], chance)
        elif how == "clear":
            value.clear()
        elif how == "move":
            value[key] = value.pop(key)
        else:
            del value[key]
        return value


@dataclass
class Maybe(Shape):
    """A value or None."""

    item: Shape

    def __post_init__(self) -> None:
        self.annotation = self.item.annotation | None if self.item.annotation is not Any else Any

    def make(self, chance: Random) -> Any:
        return None if chance.random() < 0.4 else self.item.make(chance)

    def change(self, value: Any, chance: Random) -> Any:
        if value is None or chance.random() < 0.3:
            return self.make(chance)
        return self.item.change(value, chance)


@dataclass
class Boxed(Shape):
    """A generic model."""

    item: Shape

    def __post_init__(self) -> None:
        self.annotation = Box[self.item.annotation]

    def make(self, chance: Random) -> Any:
        return self.annotation(content=self.item.make(chance), label=text(chance))

    def change(self, value: Any, chance: Random) -> Any:
        value._opened += 1
        value.content = self.item.change(value.content, chance)
        return value


@dataclass
class Rooted(Shape):
    """A model that is a list."""

    item: Shape

    def __post_init__(self) -> None:
        self.annotation = RootModel[list[self.item.annotation]]
        self.inner = Listed(self.item)

    def make(self, chance: Random) -> Any:
        return self.annotation(self.inner.make(chance))

    def change(self, value: Any, chance: Random) -> Any:
        value.root = self.inner.change(value.root, chance)
        return value


class Fields(Shape):
    """What has named fields: a model, a dataclass, a typed dict."""

    def __init__(self, style: str, shapes: list[Shape], tag: str = "") -> None:
        self.style = style
        self.shapes = {f"f{n}": shape for n, shape in enumerate(shapes)}
        self.tag = tag
        types = {name: shape.annotation for name, shape in self.shapes.items()}
        if style == "dataclass":
            self.annotation = make_dataclass("Record", list(types.items()))
        elif style == "typed dict":
            self.annotation = TypedDict("Entry", types)  # type: ignore[operator]
        else:
            self.annotation = self._model(types)

    def _model(self, types: dict[str, Any]) -> Any:
        made: dict[str, Any] = {
            name: (type_, Field(alias=f"{name}-alias") if self.style == "alias" else ...)
            for name, type_ in types.items()
        }
        if self.tag:
            made["kind"] = (Literal[self.tag], self.tag)
        config = {
            "alias": ConfigDict(populate_by_name=True),
            "extra": ConfigDict(extra="allow"),
            "checked": ConfigDict(validate_assignment=True),
            "frozen": ConfigDict(frozen=True),
        }.get(self.style, ConfigDict())
        base = type("Configured", (Counted,), {"model_config": config, "__module__": __name__})
        return create_model(f"Part{self.tag.title()}", __base__=base, **made)

    def make(self, chance: Random) -> Any:
        return self.annotation(**{n: shape.make(chance) for n, shape in self.shapes.items()})

    def change(self, value: Any, chance: Random) -> Any:
        name = chance.choice(list(self.shapes))
        if chance.random() < 0.1:
            return self.make(chance)
        if self.style == "typed dict":
            value[name] = self.shapes[name].change(value[name], chance)
            return value
        new = self.shapes[name].change(getattr(value, name), chance)
        if self.style == "frozen" or (self.style != "dataclass" and chance.random() < 0.2):
            return value.model_copy(update={name: new})
        setattr(value, name, new)
        if self.style == "extra":
            setattr(value, chance.choice(["more", "most"]), chance.choice([1, None, [{"a": 1}]]))
        return value


class Tagged(Shape):
    """A discriminated union of two models."""

    def __init__(self, first: list[Shape], second: list[Shape]) -> None:
        self.either = [Fields("plain", first, "one"), Fields("plain", second, "two")]
        one, two = (each.annotation for each in self.either)
        self.annotation = Annotated[one | two, Field(discriminator="kind")]

    def make(self, chance: Random) -> Any:
        return chance.choice(self.either).make(chance)

    def change(self, value: Any, chance: Random) -> Any:
        if chance.random() < 0.2:
            return self.make(chance)
        return next(e for e in self.either if e.tag == value.kind).change(value, chance)


@dataclass
class Whole:
    """A state schema, and how its fields are changed."""

    shapes: list[Shape]
    seed: int
    extra: bool = False
    schema: type[WorkflowState] = field(init=False)

    def __post_init__(self) -> None:
        chance = Random(self.seed)
        fields: dict[str, Any] = {
            f"f{n}": (shape.annotation, shape.make(chance)) for n, shape in enumerate(self.shapes)
        }
        config = ConfigDict(extra="allow") if self.extra else ConfigDict()
        base = type(
            "Based",
            (WorkflowState,),
            {
                "model_config": config,
                "_private": PrivateAttr(default=0),
                "__module__": __name__,
                "__annotations__": {"_private": int},
            },
        )
        self.schema = create_model("Made", __base__=base, **fields)

    def change(self, state: Any, seed: int, only: int | None = None) -> None:
        """Change some fields of a state, or one, in the ways that the seed says."""
        chance = Random(seed)
        for _ in range(chance.randint(1, 3)):
            n = chance.randrange(len(self.shapes)) if only is None else only
            old = getattr(state, f"f{n}")
            new = self.shapes[n].change(old, chance)
            if new is not old:
                setattr(state, f"f{n}", new)
            if self.extra and only is None and chance.random() < 0.2:
                setattr(state, chance.choice(["more", "most"]), chance.choice([1, None, ["x"]]))


def plain(value: Any) -> Any:
    """Return what two values must share to be the same: types, order of dicts, time zones."""
    name = type(value).__name__
    if isinstance(value, BaseModel):
        inner = {**value.__dict__, **(value.model_extra or {})}
        return name, {key: plain(each) for key, each in inner.items()}
    if hasattr(value, "__dataclass_fields__"):
        return name, {key: plain(each) for key, each in vars(value).items()}
    if isinstance(value, dict):
        pairs = cast("dict[Any, Any]", value).items()
        return name, [(plain(key), plain(each)) for key, each in pairs]
    if isinstance(value, set | frozenset):
        return name, sorted(repr(plain(each)) for each in cast("set[Any]", value))
    if isinstance(value, list | tuple | deque):
        return name, [plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, dt.datetime | dt.time):
        return name, value.replace(tzinfo=None).isoformat(), value.utcoffset()
    return name, repr(value)
