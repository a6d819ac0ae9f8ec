"""Typed JSON: a value as readable JSON text beside a descriptor of its types, and back again."""

# The body is what a reader of the execution sees; the descriptor is JSON text, or None where the
# body says it all. Both are part of the journal format. A descriptor D is one of
#
#   null                          the body as it stands
#   "datetime", "tuple", ...      a built-in kind: a key of _READERS
#   "module:qualname"             the class loads the body, its own JSON (model, enum by value)
#   {"is": N, ...}                the parts first, then N from them; no "is": a list or a dict
#       "*": D                    every element or value; null stays None
#       "at": [[D, [key, ...]]]   only the elements or values at these indexes or keys
#       "keys": D                 the keys of a dict, described like a list
#       "how": "raw"              fields set without validation, without `__post_init__`
#       "how": "name" | "tuple"   an enum member by its name | a named tuple
#       "tz": zone                with "datetime" and "time": the IANA zone behind the offset
#       "of": D                   with "json", a key that is JSON text itself: what is in it
#
# Rule 1: `decode` returns what was encoded, types included. Not kept: subclasses of str, int, list,
#   dict, datetime and so on (they decay to their base), IANA zones inside pydantic models (they
#   become offsets), private attributes, fields with `exclude=True`, the set of unset fields.
# Rule 2: nothing is imported. A class is one given to `know`, or encoded here, or one of the kinds
#   of `_kind_of` that a module in `sys.modules` holds under that very name.
# Rule 3: the same value gives the same text in every process, so sets are sorted.

import binascii
import dataclasses
import logging
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined, SchemaValidator, core_schema, from_json, to_json

from polos.errors import EncodeError, UsageError

# A writer gives the JSON text of a value and its descriptor; the set holds the ids of the
# containers around it.
_Writer = Callable[[Any, set[int]], tuple[str, Any]]

_DEPTH = 100  # pydantic reads 200 levels, and a model may add some of its own
_MOST = 10**4000  # neither Python nor pydantic reads numbers of more than 4,300 digits
_LEAST = -_MOST
_LONG_NUMBER = re.compile(rb"\d{19}")  # in every 200th byte: of a number with 4,000 digits
_CLASSES_MAX = 10_000  # programs that make classes as they run must not fill the memory
_MANY = 20  # a list of as many models is worth a serializer of its own
_GONE: Any = object()
_T = TypeVar("_T")

_class_of: Callable[[Any], type[Any]] = type

# What a class may raise when it refuses data; ValidationError is a ValueError.
_MISFITS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)

_log = logging.getLogger("polos.codec")


class Encoded(NamedTuple):
    """What is stored of a value: JSON text, and the descriptor of its types if it needs one."""

    body: str
    type: str | None


_NULL, _TRUE, _FALSE = Encoded("null", None), Encoded("true", None), Encoded("false", None)


class Codec:
    """Encodes and decodes values, and knows the classes that it may decode to."""

    def __init__(self) -> None:
        self._classes = _Classes()
        self._reader = _Reader(self._classes)
        self._writer = _Values(self._classes, self._reader)

    def know(self, annotation: Any) -> None:
        """Remember every class that is reachable in `annotation` and can be decoded to."""
        self._classes.know(annotation)

    def encode(self, value: Any, *, what: str = "result") -> Encoded:
        """Return text and descriptor of `value`; `what` begins the path in an error."""
        kind = _class_of(value)
        if value is None:
            return _NULL
        if kind is bool:
            return _TRUE if value else _FALSE
        if kind is int and _LEAST < value < _MOST:
            return Encoded(repr(value), None)
        if kind is str or kind is float or _is_plain(value, 0):
            try:
                return Encoded(to_json(value).decode(), None)
            except ValueError:
                pass  # a lone surrogate: the walk finds its place
        try:
            text, shape = self._writer.write(value, set())
        except _Bad as bad:
            path = what + "".join(reversed(bad.trail))
            raise EncodeError(f"cannot record {path}: {bad.reason}", path) from None
        return Encoded(text, None if shape is None else to_json(shape).decode())

    def decode(self, body: str, type: str | None, hint: Any = None) -> Any:
        """Return the value: by its descriptor, else by the annotation `hint`, else plain data.

        Raises `UsageError` if its class is found but no longer accepts the data.
        """
        if type is not None:
            return self._reader.read(body, from_json(type), hint)
        value = from_json(body)
        if hint is None or value is None:
            return value
        return self._reader.plain(body, value, hint)


class _Bad(Exception):
    """Something cannot be written; `trail` is the path to it, last part first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trail: list[str] = []


# ---- the kinds of classes, and where to find them


def _kind_of(cls: Any) -> str | None:
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
def _fields_of(cls: Any) -> tuple[str, ...] | None:
    """Return the names of the fields that are recorded of an object, if it is one."""
    match _kind_of(cls):
        case "model":
            return tuple(name for name, field in cls.model_fields.items() if not field.exclude)
        case "dataclass":
            return tuple(field.name for field in dataclasses.fields(cls))
        case "struct":
            return cls.__struct_fields__
        case _:
            return None


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


class _Classes:
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
                if _kind_of(item):
                    self._known[_name_of(item)] = self._latest[_name_of(item)] = item

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
    if not _kind_of(found):
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
    kind = _kind_of(item)
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


# ---- built-in kinds


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether `value` is a dict or list that JSON holds and gives back as it is."""
    kind = _class_of(value)
    items: Any = value
    if kind is dict:
        for key in items:
            if type(key) is not str:
                return False
        items = items.values()
    elif kind is not list:
        return False
    for item in items:
        kind = _class_of(item)
        if kind in _ATOMS or (kind is int and _LEAST < item < _MOST):
            continue
        if depth >= _DEPTH - 1 or not _is_plain(item, depth + 1):
            return False
    return True


def _write_none(value: None, seen: set[int]) -> tuple[str, Any]:
    return "null", None


def _write_bool(value: bool, seen: set[int]) -> tuple[str, Any]:
    return ("true" if value else "false"), None


def _write_int(value: int, seen: set[int]) -> tuple[str, Any]:
    if _LEAST < value < _MOST:
        return int.__repr__(value), None
    return f'"{hex(value)}"', "int"  # there is no limit to hexadecimal digits


def _write_str(value: str, seen: set[int]) -> tuple[str, Any]:
    try:
        return to_json(value).decode(), None
    except ValueError:
        spot = next(i for i, char in enumerate(value) if "\ud800" <= char <= "\udfff")
        raise _Bad(
            f"character {spot} of the text is the lone surrogate {value[spot]!a}, which JSON "
            "cannot hold; decode the text properly, or record bytes"
        ) from None


def _write_bytes(value: bytes | bytearray | memoryview, seen: set[int]) -> tuple[str, Any]:
    return f'"{binascii.b2a_base64(value, newline=False).decode()}"', "bytes"


def _write_datetime(value: datetime, seen: set[int]) -> tuple[str, Any]:
    return f'"{datetime.isoformat(value)}"', _zoned("datetime", value)


def _write_time(value: time, seen: set[int]) -> tuple[str, Any]:
    return f'"{time.isoformat(value)}"', _zoned("time", value)


def _zoned(name: str, value: datetime | time) -> Any:
    key = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return name if key is None else {"is": name, "tz": key}


def _in_zone(value: Any, key: str | None) -> Any:
    """Put the zone back that was written as an offset, if this machine knows it."""
    if key is None:
        return value
    try:
        zone = ZoneInfo(key)
    except (KeyError, ValueError, OSError):
        return value
    if isinstance(value, time):
        return value.replace(tzinfo=zone)
    for fold in (0, 1):
        local = value.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == value.utcoffset():
            return local
    return value.astimezone(zone)


def _as_text(name: str, text: Callable[[Any], str]) -> _Writer:
    def write(value: Any, seen: set[int]) -> tuple[str, Any]:
        return _write_str(text(value), seen)[0], name

    return write


def _refuse(value: Any, seen: set[int]) -> tuple[str, Any]:
    is_class = isinstance(value, type)
    name = _name_of(value if is_class else type(value)).removeprefix("builtins:")
    raise _Bad(
        f"{'the class' if is_class else 'a value of type'} {name} is not data; expected None, "
        "bool, int, float, str, bytes, a list, tuple, dict or set of such, a date or time, "
        "Decimal, UUID, path, enum, dataclass, msgspec struct or pydantic model; record a list or "
        "dict of what is in it, or an id to find it again"
    )


_ATOMS = frozenset({str, float, bool, type(None)})
_duration = SchemaValidator(core_schema.timedelta_schema())

# In the order in which a subclass looks for the base to decay to, its own method resolution order.
_WRITERS: dict[type, _Writer] = {
    type(None): _write_none,
    bool: _write_bool,
    int: _write_int,
    float: lambda value, seen: (to_json(float(value)).decode(), None),
    str: _write_str,
    bytes: _write_bytes,
    bytearray: _write_bytes,
    memoryview: _write_bytes,
    datetime: _write_datetime,
    date: _as_text("date", date.isoformat),
    time: _write_time,
    timedelta: lambda value, seen: (to_json(value).decode(), "timedelta"),
    Decimal: _as_text("decimal", Decimal.__str__),
    UUID: _as_text("uuid", UUID.__str__),
    pathlib.Path: _as_text("path", pathlib.PurePath.__str__),
    pathlib.PurePosixPath: _as_text("posixpath", pathlib.PurePath.__str__),
    pathlib.PureWindowsPath: _as_text("windowspath", pathlib.PurePath.__str__),
}

_READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "bytes": binascii.a2b_base64,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": _duration.validate_python,
    "decimal": Decimal,
    "uuid": UUID,
    "path": pathlib.Path,
    "posixpath": pathlib.PurePosixPath,
    "windowspath": pathlib.PureWindowsPath,
    "json": from_json,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,  # from pairs
}


# ---- writing


class _Values:
    """Writes values of every kind; keeps one writer per class."""

    def __init__(self, classes: _Classes, reader: "_Reader") -> None:
        self._classes = classes
        self._reader = reader
        self._makers: dict[str, Callable[[Any], _Writer]] = {
            "enum": self._enum,
            "model": self._model,
            "dataclass": self._dataclass,
            "struct": self._struct,
            "namedtuple": self._namedtuple,
        }
        self._builtin: dict[type, _Writer] = {
            **_WRITERS,
            list: self._list,
            tuple: self._tuple,
            dict: self._dict,
            set: self._set,
            frozenset: self._set,
        }
        self._writers = dict(self._builtin)
        self._surveys: dict[type, _Survey] = {}

    def write(self, value: Any, seen: set[int]) -> tuple[str, Any]:
        cls = _class_of(value)
        return (self._writers.get(cls) or self._writer(cls))(value, seen)

    def _writer(self, cls: type) -> _Writer:
        if len(self._writers) > _CLASSES_MAX:
            self._writers = dict(self._builtin)
            self._surveys.clear()
            self._classes.forget()
        kind = _kind_of(cls)
        bases = (self._builtin[base] for base in cls.__mro__ if base in self._builtin)
        self._writers[cls] = self._makers[kind](cls) if kind else next(bases, _refuse)
        return self._writers[cls]

    def _each(
        self, keys: Iterable[Any], values: Iterable[Any], seen: set[int], part: str
    ) -> tuple[list[str], list[Any]]:
        """Write `values`; `part` makes the path to one that cannot be written from its key."""
        texts: list[str] = []
        shapes: list[Any] = []
        writers = self._writers
        for key, value in zip(keys, values, strict=True):
            cls = _class_of(value)
            try:
                text, shape = (writers.get(cls) or self._writer(cls))(value, seen)
            except _Bad as bad:
                bad.trail.append(part.format(key))
                raise
            texts.append(text)
            shapes.append(shape)
        return texts, shapes

    def _elements(self, value: Sequence[Any], seen: set[int]) -> tuple[str, dict[str, Any]]:
        if len(value) >= _MANY:
            survey = self._surveys.get(_class_of(value[0]))
            text = survey.dump_all(value) if survey is not None else None
            if survey is not None and text is not None:
                self._classes.add(survey.name, survey.cls)
                return text, {"*": survey.name}
        _enter(value, seen)
        texts, shapes = self._each(range(len(value)), value, seen, "[{}]")
        seen.discard(id(value))
        return f"[{','.join(texts)}]", _joined(range(len(texts)), texts, shapes)

    def _list(self, value: list[Any], seen: set[int]) -> tuple[str, Any]:
        text, shape = self._elements(value, seen)
        return text, shape or None

    def _tuple(self, value: tuple[Any, ...], seen: set[int]) -> tuple[str, Any]:
        text, shape = self._elements(value, seen)
        return text, {"is": "tuple", **shape} if shape else "tuple"

    def _namedtuple(self, cls: type) -> _Writer:
        name = _name_of(cls)

        def write(value: tuple[Any, ...], seen: set[int]) -> tuple[str, Any]:
            self._classes.add(name, cls)
            text, shape = self._elements(value, seen)
            return text, {"is": name, "how": "tuple", **shape}

        return write

    def _set(self, value: set[Any] | frozenset[Any], seen: set[int]) -> tuple[str, Any]:
        name = "frozenset" if isinstance(value, frozenset) else "set"
        items = list(value)
        if {type(item) for item in items} in ({int}, {str}):
            items.sort()
        _enter(value, seen)
        pairs = list(zip(*self._each(items, items, seen, "[{!r:.60}]"), strict=True))
        seen.discard(id(value))
        if {type(item) for item in items} not in ({int}, {str}):
            pairs.sort(key=lambda pair: (pair[0], to_json(pair[1])))
        texts, shapes = [text for text, _ in pairs], [shape for _, shape in pairs]
        shape = _joined(range(len(texts)), texts, shapes)
        return f"[{','.join(texts)}]", {"is": name, **shape} if shape else name

    def _dict(self, value: dict[Any, Any], seen: set[int]) -> tuple[str, Any]:
        _enter(value, seen)
        labels, keys = self._labels(value, seen)
        if len(set(labels)) == len(labels):
            names, _ = self._each(value, labels, seen, "[{!r:.60}]")
            texts, shapes = self._each(value, value.values(), seen, "[{!r:.60}]")
            text, shape = _braces(names, texts), _joined(labels, texts, shapes)
            shape |= {"keys": keys} if keys else {}
        else:  # as in {"a": 1, Path("a"): 2}
            text, shape = self._elements([[key, item] for key, item in value.items()], seen)
            shape["is"] = "dict"
        seen.discard(id(value))
        return text, shape or None

    def _labels(self, value: dict[Any, Any], seen: set[int]) -> tuple[list[str], dict[str, Any]]:
        """Return the keys of `value` as text, and the descriptor that makes them again."""
        if all(type(key) is str for key in value):
            return list(value), {}
        texts, shapes = self._each(value, value, seen, "[{!r:.60}]")
        for index, (text, shape) in enumerate(zip(texts, shapes, strict=True)):
            if text.startswith('"'):
                texts[index] = from_json(text)
            else:
                shapes[index] = "json" if shape is None else {"is": "json", "of": shape}
        return texts, _joined(range(len(texts)), [""] * len(texts), shapes)

    def _enum(self, cls: type[Enum]) -> _Writer:
        name = _name_of(cls)

        def write(value: Enum, seen: set[int]) -> tuple[str, Any]:
            self._classes.add(name, cls)
            key = value._value_  # a class may define a `value` of its own
            # A float may be NaN, which finds nothing; for other values there may be no JSON.
            if type(key) in (int, str, bool, float) and not _is_nan(key) and cls(key) is value:
                return self.write(key, seen)[0], name
            return _write_str(value.name, seen)[0], {"is": name, "how": "name"}

        return write

    def _model(self, cls: type[BaseModel]) -> _Writer:
        survey = self._surveys[cls] = _Survey(cls)
        names = {name: _write_str(name, set())[0] for name in _fields_of(cls) or ()}

        def write(value: BaseModel, seen: set[int]) -> tuple[str, Any]:
            self._classes.add(survey.name, cls)
            text = survey.dump(value, len(seen))
            if text is not None:
                return text, survey.name
            state = {name: value.__dict__[name] for name in names if name in value.__dict__}
            extra = value.__pydantic_extra__ or {}
            quoted = names | {name: _write_str(name, seen)[0] for name in extra}
            return self._object(value, survey.name, state | extra, quoted, seen, exact=False)

        return write

    def _dataclass(self, cls: Any) -> _Writer:
        fields = dataclasses.fields(cls)
        # A generated `__init__` that does nothing but set every field needs no proof.
        exact = (
            "__dataclass_params__" in vars(cls)
            and cls.__dataclass_params__.init
            and not hasattr(cls, "__post_init__")
            and not hasattr(cls, "__pydantic_fields__")
            and len(cls.__dataclass_fields__) == len(fields)
            and all(field.init for field in fields)
        )
        return self._record(cls, exact=exact)

    def _struct(self, cls: Any) -> _Writer:
        return self._record(cls, exact=not hasattr(cls, "__post_init__"))

    def _record(self, cls: type, *, exact: bool) -> _Writer:
        name = _name_of(cls)
        names = {field: _write_str(field, set())[0] for field in _fields_of(cls) or ()}
        unset = getattr(sys.modules.get("msgspec"), "UNSET", _GONE)

        def write(value: Any, seen: set[int]) -> tuple[str, Any]:
            self._classes.add(name, cls)
            state: dict[str, Any] = {}
            for field in names:
                item = getattr(value, field, _GONE)
                if item is not _GONE and item is not unset:
                    state[field] = item
            return self._object(value, name, state, names, seen, exact=exact)

        return write

    def _object(
        self,
        value: Any,
        name: str,
        state: dict[str, Any],
        quoted: dict[str, str],
        seen: set[int],
        *,
        exact: bool,
    ) -> tuple[str, Any]:
        """Write an object by its fields; unless that is `exact`, prove that it comes back."""
        _enter(value, seen)
        texts, shapes = self._each(state, state.values(), seen, ".{}")
        seen.discard(id(value))
        text = _braces([quoted[field] for field in state], texts)
        shape = _joined(list(state), texts, shapes)
        shape["is"] = name
        if exact:
            return text, shape
        try:
            if _is_same(value, self._reader.restore(from_json(text), shape, []), len(seen)):
                return text, shape
        except (UsageError, *_MISFITS):
            pass
        shape["how"] = "raw"
        try:
            self._reader.restore(from_json(text), shape, [])
        except (UsageError, *_MISFITS) as error:
            raise _Bad(f"{name} cannot be made from its own fields: {error}") from error
        return text, shape


def _enter(value: Any, seen: set[int]) -> None:
    if id(value) in seen:
        raise _Bad("it contains itself; record an id in place of the inner one")
    if len(seen) >= _DEPTH:
        raise _Bad(f"it is nested deeper than {_DEPTH} levels; flatten it, or record it as text")
    seen.add(id(value))


def _braces(names: list[str], texts: list[str]) -> str:
    return "{" + ",".join([f"{name}:{text}" for name, text in zip(names, texts, strict=True)]) + "}"


def _joined(keys: Sequence[Any], texts: Sequence[str], shapes: list[Any]) -> dict[str, Any]:
    """Return the descriptor of parts: one for all where they agree, else grouped by descriptor."""
    first = next((shape for shape in shapes if shape is not None), None)
    if first is None:
        return {}
    # Not where null stands for anything but None, as in a RootModel of None.
    pairs = zip(texts, shapes, strict=True)
    if all(shape is None if text == "null" else shape == first for text, shape in pairs):
        return {"*": first}
    groups: dict[Any, tuple[Any, list[Any]]] = {}
    for key, shape in zip(keys, shapes, strict=True):
        if shape is not None:
            group = shape if isinstance(shape, str) else to_json(shape)
            groups.setdefault(group, (shape, []))[1].append(key)
    return {"at": list(groups.values())}


class _Survey:
    """Whether the JSON of a model's instances loads back as them, as far as its schema tells."""

    def __init__(self, cls: type[BaseModel]) -> None:
        self.cls = cls
        self.name = _name_of(cls)
        self._sets = False
        self._trusted = True
        self._nested: set[type] = set()
        self._definitions: dict[str, Any] = {}
        self._done: set[str] = set()
        self._open: set[str] = set()
        self._list: TypeAdapter[Any] | None = None
        schema: Any = cls.__pydantic_core_schema__
        if isinstance(schema, dict):
            self._visit(schema)
            self._nested.discard(cls)
        else:  # not built yet, a placeholder
            self._trusted = False

    def dump(self, value: BaseModel, depth: int) -> str | None:
        """Return the model's own JSON, or None if the instance would not come back from it."""
        if self._sets:
            return None  # pydantic writes them in the order of this process's hashes
        try:
            raw = self.cls.__pydantic_serializer__.to_json(
                value, by_alias=False, round_trip=True, warnings="error"
            )
            if not self._is_safe(raw):
                load = self.cls.__pydantic_validator__.validate_json
                if not _is_same(value, load(raw, by_alias=False, by_name=True), depth):
                    return None
            return raw.decode()
        except _MISFITS:
            return None

    def dump_all(self, values: Sequence[Any]) -> str | None:
        """Return the JSON of many instances, or None if they must be looked at one by one."""
        if not self._trusted or any(_class_of(value) is not self.cls for value in values):
            return None
        if self._list is None:
            every: Any = list[self.cls]
            self._list = TypeAdapter(every)
        try:
            raw = self._list.dump_json(
                list(values), by_alias=False, round_trip=True, warnings="error"
            )
        except _MISFITS:
            return None
        return raw.decode() if self._is_safe(raw) else None

    def _is_safe(self, raw: bytes) -> bool:
        # null may stand for NaN; an instance of a subclass is written as its declared base.
        return (
            self._trusted
            and b"null" not in raw
            and not _LONG_NUMBER.search(raw[::200])
            and not (self._nested and any(cls.__subclasses__() for cls in self._nested))
        )

    def _visit(self, node: Any) -> None:
        if isinstance(node, (list, tuple)):
            for part in typing.cast("Sequence[Any]", node):
                self._visit(part)
        elif isinstance(node, dict):
            self._visit_dict(typing.cast("dict[str, Any]", node))

    def _visit_dict(self, node: dict[str, Any]) -> None:
        kind = node.get("type")
        if kind == "definitions":
            self._definitions |= {part["ref"]: part for part in node["definitions"]}
            self._visit(node["schema"])
        elif kind == "definition-ref":
            self._follow(node["schema_ref"])
        else:
            if isinstance(kind, str):  # otherwise a dict of fields or choices
                self._judge(kind, node)
            for key, part in node.items():
                if key not in _OPAQUE:
                    self._visit(part)

    def _follow(self, ref: str) -> None:
        if ref in self._open or ref not in self._definitions:
            self._trusted = False  # recursive: instances may be nested too deep to be read
        elif ref not in self._done:
            self._open.add(ref)
            self._visit(self._definitions[ref])
            self._open.discard(ref)
            self._done.add(ref)

    def _judge(self, kind: str, node: dict[str, Any]) -> None:
        self._sets = self._sets or kind in ("set", "frozenset")
        if kind == "model":
            self._nested.add(node["cls"])
        # By identity: `ge=0` is a constraint, and 0 equals False.
        others = (node[key] for key in node.keys() - _NODE_KEYS)
        unknown = any(item is not None and item is not False for item in others)
        options = node.get("config", {}).keys() - _CONFIG_KEYS
        dict_keys = node.get("keys_schema", {}).get("type", "str")
        values = [member.value for member in node.get("members", ())]
        if (
            kind not in _NODES
            or unknown
            or options
            or dict_keys != "str"
            or not all(type(value) in (int, str) for value in values)
        ):
            self._trusted = False


# What a schema may consist of so that no instance needs to be checked. Not in it: what converts
# (unions, any, functions), what restricts (an assignment may have broken it), what pydantic does
# not check when it writes (Literal), what it writes but does not load (an infinite Decimal).
_NODES = frozenset(
    {
        *("model", "model-fields", "model-field", "nullable", "default"),
        *("str", "int", "float", "bool", "uuid", "enum", "list", "dict", "tuple"),
        *("datetime", "date", "time", "timedelta"),
    }
)
_NODE_KEYS = frozenset(
    {
        *("type", "schema", "fields", "cls", "config", "ref", "metadata", "root_model", "frozen"),
        *("generic_origin", "model_name", "computed_fields", "members", "sub_type"),
        *("serialization_alias", "validation_alias", "microseconds_precision"),
        *("default", "default_factory", "default_factory_takes_data"),
        *("items_schema", "variadic_item_index", "keys_schema", "values_schema"),
    }
)
_CONFIG_KEYS = frozenset(
    {
        *("title", "frozen", "from_attributes"),
        *("validate_by_alias", "validate_by_name", "populate_by_name"),
    }
)
_OPAQUE = frozenset({"computed_fields", "config", "default", "expected", "members", "metadata"})


def _is_same(one: Any, other: Any, depth: int = 0) -> bool:
    """Tell whether a value came back: equal in all that is recorded, and of the same types."""
    kind = _class_of(other)
    if type(one) is not kind and not _decays(one, kind):
        return False
    if kind in _WRITERS:
        return bool(one == other) or (_is_nan(one) and _is_nan(other))
    if issubclass(kind, (set, frozenset)):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    ones, others = _contents(one, kind), _contents(other, kind)
    if ones is None or others is None:
        return bool(one == other)
    return (
        depth < _DEPTH
        and len(ones) == len(others)
        and all(a is b or _is_same(a, b, depth + 1) for a, b in zip(ones, others, strict=True))
    )


def _contents(value: Any, kind: type[Any]) -> Sequence[Any] | None:
    if issubclass(kind, dict):
        return [*value, *value.values()]
    if issubclass(kind, (list, tuple)):
        return value
    fields = _fields_of(kind)
    if fields is None:
        return None
    extra = getattr(value, "__pydantic_extra__", None)
    return [extra, *(getattr(value, field, _GONE) for field in fields)]


def _is_nan(value: Any) -> bool:
    return bool(value != value)  # noqa: PLR0124 - nothing else differs from itself


def _decays(value: Any, kind: type) -> bool:
    if isinstance(value, Enum):
        return False
    return (kind in _BASES and isinstance(value, kind)) or (kind is float and type(value) is int)


_BASES = _WRITERS.keys() | {list, tuple, dict, set, frozenset}


# ---- reading


class _Reader:
    """Restores values from their JSON and descriptor, or from an annotation."""

    def __init__(self, classes: _Classes) -> None:
        self._classes = classes
        self._adapters: dict[Any, TypeAdapter[Any] | None] = {}
        self._targets: dict[Any, bool] = {}
        self._warned: set[str] = set()

    def plain(self, body: str, value: Any, hint: Any) -> Any:
        """Return `value`, that has no descriptor, as the class that `hint` names, if it fits."""
        try:
            if not _cached(self._targets, hint, _is_target):
                return value
            # By alias too: what has no descriptor may come from outside.
            return self._validate(hint, body, by_alias=True)
        except _MISFITS:
            return value

    def read(self, body: str, shape: Any, hint: Any) -> Any:
        missing: list[str] = []
        value = self._read(body, shape, missing)
        if not missing:
            return value
        for source in (value, _GONE) if hint is not None else ():
            try:
                fitted = self._validate(hint, body, value=source)
            except _MISFITS:
                continue
            if not _is_same(fitted, value):
                return fitted
            break  # an annotation that says nothing, such as Any
        for name in sorted(set(missing) - self._warned):
            self._warned.add(name)
            _log.warning(
                "class %r is not known in this process, so its data stays plain; import its "
                "module, or annotate the workflow with the class that took its place",
                name,
            )
        return value

    def _read(self, body: str, shape: Any, missing: list[str]) -> Any:
        """Restore from text; the common shapes without a tree in between."""
        kind = _class_of(shape)
        if kind is str and ":" in shape:
            cls = self._classes.find(shape)
            if cls is not None:
                return self._load(cls, shape, body)
        elif kind is dict and len(shape) == 1 and body.startswith("["):
            cls = self._classes.find_model(shape.get("*"))
            if cls is not None:
                return self._load(list[cls | None], shape["*"], body)
        return self.restore(from_json(body), shape, missing)

    def restore(self, tree: Any, shape: Any, missing: list[str]) -> Any:
        """Return the JSON value `tree` as `shape` says; name the classes that are `missing`."""
        if shape is None:
            return tree
        if type(shape) is str:
            return self._whole(tree, shape, missing)
        name = shape.get("is")
        if name == "json":
            return self.restore(from_json(tree), shape["of"], missing)
        parts = self._parts(tree, shape, missing)
        if name is None:
            return parts
        if name in _READERS:
            return _in_zone(_READERS[name](parts), shape.get("tz"))
        return self._assemble(name, parts, shape.get("how"), missing)

    def _whole(self, tree: Any, name: str, missing: list[str]) -> Any:
        if name in _READERS:
            return _READERS[name](tree)
        cls = self._classes.find(name)
        if cls is None:
            missing.append(name)
            return tree
        return self._load(cls, name, to_json(tree))

    def _assemble(self, name: str, parts: Any, how: str | None, missing: list[str]) -> Any:
        cls = self._classes.find(name)
        if cls is None:
            missing.append(name)
            return tuple(parts) if how == "tuple" else parts
        try:
            return _assembled(cls, parts, raw=how == "raw")
        except _MISFITS as error:
            raise _misfit(name, error) from error

    def _parts(self, tree: Any, shape: dict[str, Any], missing: list[str]) -> Any:
        every = shape.get("*")
        if every is not None:
            kind = _class_of(tree)
            is_list = kind is list
            cls = self._classes.find_model(every) if is_list else None
            if cls is not None:
                return self._load(list[cls | None], every, to_json(tree))
            keys: Iterable[Any] = range(len(tree)) if is_list else list(tree)
            for key in keys:
                if tree[key] is not None:
                    tree[key] = self.restore(tree[key], every, missing)
        for part, places in shape.get("at", ()):
            for key in places:
                tree[key] = self.restore(tree[key], part, missing)
        if "keys" in shape:
            names = self._parts(list(tree), shape["keys"], missing)
            return dict(zip(names, tree.values(), strict=True))
        return tree

    def _load(self, hint: Any, name: str, body: str | bytes) -> Any:
        """Let the class `name` load its own JSON; `hint` is the class, or a list of it."""
        try:
            match _kind_of(hint):
                case "enum":
                    return hint(from_json(body))
                case "model":
                    load = hint.__pydantic_validator__.validate_json
                    return load(body, by_alias=False, by_name=True)
                case _:
                    return self._validate(hint, body)
        except _MISFITS as error:
            raise _misfit(name, error) from error

    def _validate(
        self, hint: Any, body: str | bytes, *, value: Any = _GONE, by_alias: bool = False
    ) -> Any:
        """Validate the JSON `body`, or `value` where parts of it are restored already."""
        adapter = _cached(self._adapters, hint, _adapter)
        if adapter is None:
            return _convert(hint, from_json(body) if value is _GONE else value)
        if value is _GONE:
            return adapter.validate_json(body, by_alias=by_alias, by_name=True)
        return adapter.validate_python(value, by_alias=by_alias, by_name=True)


def _cached(cache: dict[Any, _T], key: Any, make: Callable[[Any], _T]) -> _T:
    try:
        return cache[key]
    except KeyError:
        if len(cache) > _CLASSES_MAX:
            cache.clear()
        value = cache[key] = make(key)
        return value
    except TypeError:  # an annotation that cannot be hashed
        return make(key)


def _is_target(hint: Any) -> bool:
    """Tell whether an annotation is a class of the kinds, or Optional of one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        hint = options[0] if len(options) == 1 else None
    return _kind_of(typing.get_origin(hint) or hint) is not None


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except (NameError, RuntimeError, TypeError):  # not a type that pydantic knows
        return None


def _convert(hint: Any, value: Any) -> Any:
    msgspec: Any = sys.modules.get("msgspec")
    if msgspec is None:
        raise TypeError(f"pydantic cannot validate {hint!r}")
    kind = _class_of(value)
    if kind is dict and _kind_of(hint) == "struct":
        # Recorded by field name, but msgspec reads the names that `rename` makes of them.
        names = {field.name: field.encode_name for field in msgspec.structs.fields(hint)}
        value = {names.get(key, key): item for key, item in value.items()}
    return msgspec.convert(value, hint)


def _assembled(cls: Any, parts: Any, *, raw: bool) -> Any:
    """Make an instance of `cls` from restored parts; `raw` passes over its own checks."""
    match _kind_of(cls):
        case "enum":
            return cls[parts]
        case "namedtuple":
            return cls(*parts)
        case "model" if raw:
            return _raw_model(cls, parts)
        case "model":
            content = parts["root"] if issubclass(cls, RootModel) else parts
            validator = cls.__pydantic_validator__
            return validator.validate_python(content, by_alias=False, by_name=True)
        case "dataclass" if raw:
            return _raw_dataclass(cls, parts)
        case "dataclass":
            names = {field.name for field in dataclasses.fields(cls) if field.init}
            return cls(**{name: part for name, part in parts.items() if name in names})
        case _:
            parts = {name: part for name, part in parts.items() if name in cls.__struct_fields__}
            value = cls(**parts)
            for name, part in parts.items() if raw else ():
                sys.modules["msgspec"].structs.force_setattr(value, name, part)
            return value


def _raw_model(cls: type[BaseModel], parts: dict[str, Any]) -> BaseModel:
    state: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        if name in parts:
            state[name] = parts[name]
        elif not field.is_required():
            state[name] = field.get_default(call_default_factory=True, validated_data=state)
    private = {name: attr.get_default() for name, attr in cls.__private_attributes__.items()}
    private = {name: item for name, item in private.items() if item is not PydanticUndefined}
    extra = {name: part for name, part in parts.items() if name not in state}
    value = cls.__new__(cls)
    # What `copy` and `pickle` use, not what the class may have made of it.
    BaseModel.__setstate__(
        value,
        {
            "__dict__": state,
            "__pydantic_fields_set__": parts.keys() & state.keys(),
            "__pydantic_extra__": extra if cls.model_config.get("extra") == "allow" else None,
            "__pydantic_private__": private if cls.__private_attributes__ else None,
        },
    )
    return value


def _raw_dataclass(cls: Any, parts: dict[str, Any]) -> Any:
    value = cls.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in parts:
            object.__setattr__(value, field.name, parts[field.name])
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default_factory())
    return value


def _misfit(name: str, error: Exception) -> UsageError:
    details = f"{type(error).__name__}: {error}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[:3]
        places = (".".join(map(str, item["loc"])) or "value" for item in first)
        details = "; ".join(f"{p}: {item['msg']}" for p, item in zip(places, first, strict=True))
    return UsageError(
        f"recorded data does not fit class {name!r} any more ({details}); give new fields a "
        "default and keep reading old ones, or bring the old class back until its data is gone"
    )
