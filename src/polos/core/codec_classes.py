"""The classes that data may be decoded to: their kinds, and where they are found."""

import dataclasses
import sys
import typing
from collections.abc import Callable, Iterable
from enum import Enum
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

CLASSES_MAX = 10_000  # programs that make classes as they run must not fill the memory
GONE: Any = object()

class_of: Callable[[Any], type[Any]] = type

# What a class may raise when it refuses data; ValidationError is a ValueError.
MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


def kind_of(cls: Any) -> str | None:
    if not isinstance(cls, type):
        return None
    cls = typing.cast("type[Any]", cls)
    if issubclass(cls, Enum):
        return "enum"
    if issubclass(cls, BaseModel):
        return "model"
    if hasattr(cls, "__dataclass_fields__"):
        return "dataclass"
    if hasattr(cls, "_fields") and tuple in cls.__mro__:
        return "namedtuple"
    # Optional, and not ours to import: without it there are no structs.
    struct = getattr(sys.modules.get("msgspec"), "Struct", None)
    return "struct" if struct is not None and issubclass(cls, struct) else None


@lru_cache(maxsize=1000)
def fields_of(cls: Any) -> tuple[str, ...] | None:
    """Return the names of the fields that are recorded of an object, if it is one."""
    match kind_of(cls):
        case "model":
            return tuple(name for name, field in cls.model_fields.items() if not field.exclude)
        case "dataclass":
            return tuple(field.name for field in dataclasses.fields(cls))
        case "struct":
            return cls.__struct_fields__
        case _:
            return None


def name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


class Classes:
    """The classes that data may be decoded to, by name."""

    def __init__(self) -> None:
        self._known: dict[str, type] = {}
        self._latest: dict[str, type] = {}  # the known ones and those encoded here

    def add(self, name: str, cls: type) -> None:
        self._latest[name] = cls

    def forget(self) -> None:
        """Drop all but the classes given to `know`."""
        self._latest = dict(self._known)

    def know(self, annotation: Any) -> None:
        todo = [annotation]
        seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id is used twice
        while todo:
            item = todo.pop()
            if id(item) not in seen:
                seen[id(item)] = item
                todo += _inside(item)
                if kind_of(item):
                    self._known[name_of(item)] = self._latest[name_of(item)] = item

    def find(self, name: str) -> type | None:
        cls = self._latest.get(name) or _loaded(name)
        if cls is None:
            # Its module moved, or was run as the program then and is imported now.
            path = name.partition(":")[2]
            namesakes = {known for known in self._known.values() if known.__qualname__ == path}
            cls = namesakes.pop() if len(namesakes) == 1 else None
        return cls

    def find_model(self, shape: Any) -> type[BaseModel] | None:
        cls = self.find(shape) if isinstance(shape, str) and ":" in shape else None
        return cls if cls is not None and issubclass(cls, BaseModel) else None


def _loaded(name: str) -> type | None:
    """Return the class of this name out of the modules that are loaded already."""
    module, _, path = name.partition(":")
    path, bracket, _ = path.partition("[")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # Not getattr: it would call `__getattr__` of modules that import lazily.
        found = getattr(found, "__dict__", {}).get(part)
    if not kind_of(found):
        return None
    if bracket:  # a parametrized model lives only among the subclasses of its origin
        qualname = name.partition(":")[2]
        return next((sub for sub in found.__subclasses__() if sub.__qualname__ == qualname), found)
    return found


def _inside(item: Any) -> Iterable[Any]:
    """Return what an annotation is made of, one level down."""
    if isinstance(item, list):  # the parameters of a Callable
        return typing.cast("list[Any]", item)
    args = typing.get_args(item)
    if args:
        enums = (type(arg) for arg in args if isinstance(arg, Enum))  # of a Literal
        return [typing.get_origin(item), *args, *enums]
    kind = kind_of(item)
    if kind == "model":
        generic = item.__pydantic_generic_metadata__
        annotations = (field.annotation for field in item.model_fields.values())
        return [*annotations, *generic["args"]]
    try:
        if kind in ("dataclass", "struct", "namedtuple") or hasattr(item, "__required_keys__"):
            return typing.get_type_hints(item).values()
        return [item.__value__] if type(item).__name__ == "TypeAliasType" else ()
    except (AttributeError, NameError, SyntaxError, TypeError):
        return ()  # names that exist for the type checker only
