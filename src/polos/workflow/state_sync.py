"""State as objects: deep copies, exact comparison, and changing one into another in place."""

import copy
import dataclasses
import datetime as dt
import decimal
import enum
import operator
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

_MISSING: Any = object()
# As they are, but without what the type checker concludes from them about values of unknown type.
_kind: Callable[[Any], Any] = type
_is_a: Callable[[Any, Any], bool] = isinstance
# Past `__setattr__` of models, which validates, and of frozen classes, which refuses.
_set = object.__setattr__

# Of these types two values are the same if they are equal, and of those if they are written alike:
# 0.0 and -0.0 are equal, as are 1.0 and 1.00, and a NaN is not equal to itself.
_EXACT = frozenset({str, int, bool, bytes, type(None)})
_WRITTEN = frozenset({float, complex, decimal.Decimal})
_ATOMS = frozenset(
    {
        *_EXACT,
        *_WRITTEN,
        uuid.UUID,
        *(dt.date, dt.datetime, dt.time, dt.timedelta),
    }
)


def clone(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """Return a deep copy; what is one object in `value` is one object in the copy.

    Private attributes of models are not state: a copy shares what they hold.
    """
    kind = _kind(value)
    if kind in _ATOMS:
        return value
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    if kind is list:
        made: Any = []
        seen[id(value)] = made
        made += [v if _kind(v) in _ATOMS else clone(v, seen) for v in value]
    elif kind is dict:
        made = {}
        seen[id(value)] = made
        for key, inner in value.items():
            made[key] = inner if _kind(inner) in _ATOMS else clone(inner, seen)
    elif _is_a(value, BaseModel):
        made = _clone_model(value, seen)
    else:
        made = _clone_other(value, seen)
    return made


def is_atom(value: Any) -> bool:
    """Tell whether a value can be neither changed nor part of a change."""
    return _kind(value) in _ATOMS


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are alike in type and content: 1, 1.0 and True are not, NaNs are."""
    kind = _kind(one)
    if one is other:
        return True
    if kind is not _kind(other):
        return False
    if kind in _EXACT:
        return one == other
    if kind in _WRITTEN:
        return (kind is float and one == other != 0) or repr(one) == repr(other)
    parts = _parts(one)
    if parts is not None:
        others = _parts(other)
        return len(parts) == len(others) and all(map(same, parts, others))
    return _same_unordered(one, other)


class Sync:
    """One pass that makes live values equal to others, in place.

    Containers and models that are there stay there, and only what differs is touched. Values are
    set past validators: they were validated when they were loaded.
    """

    def __init__(self) -> None:
        self.changed = False
        # Containers that are done. One that is met again at another place cannot be two things at
        # once: there it is replaced, unless it is what belongs there.
        self._settled: dict[int, Any] = {}
        self._settlers: dict[type, Callable[[Sync, Any, Any], Any] | None] = {}

    def value(self, live: Any, target: Any) -> Any:
        """Return what belongs at a place that holds `live` and shall hold `target`."""
        if live is target:
            return live
        kind = _kind(live)
        if kind in _ATOMS or kind is not _kind(target):
            return live if same(live, target) else self._replaced(target)
        if kind not in self._settlers:
            self._settlers[kind] = _settler(kind)
        settle = self._settlers[kind]
        if settle is Sync.tuple:
            return self.tuple(live, target)
        if settle is None or id(live) in self._settled:
            return live if same(live, target) else self._replaced(target)
        self._settled[id(live)] = live
        settle(self, live, target)
        return live

    def mapping(self, live: dict[Any, Any], target: dict[Any, Any]) -> None:
        """Make one dict equal to another, in the same order."""
        if same(list(live), list(target)):
            for key, value in target.items():
                before = live[key]
                after = self.value(before, value)
                if after is not before:
                    live[key] = after
            return
        self.changed = True
        known = {(_kind(key), key): value for key, value in live.items()}
        live.clear()
        for key, value in target.items():
            before = known.get((_kind(key), key), _MISSING)
            live[key] = value if before is _MISSING else self.value(before, value)

    def model(self, live: BaseModel, target: BaseModel) -> None:
        """Make one model equal to another of its class."""
        before, self.changed = self.changed, False
        fields: Any = live.__dict__
        values: Any = target.__dict__
        for name in type(live).__pydantic_fields__:
            one, other = fields.get(name, _MISSING), values.get(name, _MISSING)
            kind = _kind(one)
            if one is not other and not (kind in _EXACT and kind is _kind(other) and one == other):
                self._attribute(fields, name, one, other)
        extra = live.__pydantic_extra__
        if extra:
            self.mapping(extra, target.__pydantic_extra__ or {})
        elif target.__pydantic_extra__:
            self._replaced(extra)
            _set(live, "__pydantic_extra__", target.__pydantic_extra__)
        if self.changed:
            live.__pydantic_fields_set__.update(target.__pydantic_fields_set__)
            # Cached properties may rest on what has changed.
            for name in fields.keys() - type(live).__pydantic_fields__.keys():
                del fields[name]
        self.changed = self.changed or before

    def sequence(self, live: Any, target: Any) -> None:
        """Make one list or deque equal to another, index by index."""
        for index, (before, value) in enumerate(zip(live, target, strict=False)):
            after = self.value(before, value)
            if after is not before:
                live[index] = after
        if len(live) != len(target):
            self.changed = True
            while len(live) > len(target):
                live.pop()
            live.extend([target[index] for index in range(len(live), len(target))])

    def members(self, live: set[Any], target: set[Any]) -> None:
        """Make one set equal to another."""
        if not same(live, target):
            self.changed = True
            live.clear()
            live.update(target)

    def tuple(self, live: Any, target: Any) -> Any:
        """Return a tuple equal to the other, of what is there; the same one if nothing moved."""
        if len(live) != len(target):
            return self._replaced(target)
        items = [self.value(before, value) for before, value in zip(live, target, strict=True)]
        return live if all(map(operator.is_, live, items)) else _remade(live, items)

    def dataclass(self, live: Any, target: Any) -> None:
        """Make one instance of a dataclass equal to another."""
        fields = _attributes(live)
        for name, value in _attributes(target).items():
            before = fields.get(name, _MISSING)
            after = self._replaced(value) if before is _MISSING else self.value(before, value)
            if after is not before:
                _set(live, name, after)

    def _attribute(self, fields: dict[str, Any], name: str, live: Any, target: Any) -> None:
        if target is _MISSING:
            del fields[name]
            self.changed = True
            return
        after = self._replaced(target) if live is _MISSING else self.value(live, target)
        if after is not live:
            fields[name] = after

    def _replaced(self, target: Any) -> Any:
        self.changed = True
        return target


def _settler(kind: Any) -> Callable[[Sync, Any, Any], Any] | None:
    """Return what changes values of a type in place, or None if each is a value as a whole."""
    for base, settle in _SETTLERS:
        if issubclass(kind, base):
            return settle
    # What is frozen may be a key or a member of a set.
    if issubclass(kind, BaseModel):
        return None if kind.model_config.get("frozen") else Sync.model
    if dataclasses.is_dataclass(kind):
        return None if _params(kind).frozen else Sync.dataclass
    return None


def _params(kind: Any) -> Any:
    return kind.__dataclass_params__


_SETTLERS: list[tuple[Any, Callable[[Sync, Any, Any], Any]]] = [
    ((list, deque), Sync.sequence),
    (dict, Sync.mapping),
    (set, Sync.members),
    (tuple, Sync.tuple),
]


def _clone_model(model: Any, seen: dict[int, Any]) -> Any:
    cls = _kind(model)
    made = seen[id(model)] = cls.__new__(cls)
    known = cls.__pydantic_fields__
    fields = {
        name: value if _kind(value) in _ATOMS else clone(value, seen)
        for name, value in model.__dict__.items()
        if name in known
    }
    _set(made, "__dict__", fields)
    _set(made, "__pydantic_extra__", clone(model.__pydantic_extra__, seen))
    _set(made, "__pydantic_fields_set__", model.__pydantic_fields_set__.copy())
    _set(made, "__pydantic_private__", copy.copy(model.__pydantic_private__))
    return made


def _clone_other(value: Any, seen: dict[int, Any]) -> Any:
    if _is_a(value, tuple):
        items = [clone(item, seen) for item in value]
        return value if all(map(operator.is_, value, items)) else _remade(value, items)
    if _is_a(value, enum.Enum | frozenset):
        return value  # members of sets cannot be changed, as they are hashed
    inner: Any = ()
    if _is_a(value, list | deque):
        inner = enumerate(value)
    elif _is_a(value, dict):
        inner = value.items()
    elif dataclasses.is_dataclass(value):
        inner = _attributes(value).items()
    elif not _is_a(value, set):
        return copy.deepcopy(value, seen)
    made: Any = copy.copy(value)
    seen[id(value)] = made
    place: Callable[[Any, Any, Any], None]
    place = _set if dataclasses.is_dataclass(value) else operator.setitem
    for key, item in inner:
        place(made, key, clone(item, seen))
    return made


def _remade(value: Any, items: list[Any]) -> Any:
    """Return a tuple of the same type with other items."""
    return value._make(items) if hasattr(value, "_make") else _kind(value)(items)


def _parts(value: Any) -> Any:
    """Return a sequence of what a value is made of, or None if it is not one in order."""
    if _is_a(value, list | tuple | deque):
        return value
    if _is_a(value, dict):
        return [*map(_kind, value), *value, *value.values()]
    if _is_a(value, BaseModel):
        fields = [value.__dict__.get(name, _MISSING) for name in _kind(value).__pydantic_fields__]
        return [*fields, value.__pydantic_extra__]
    if dataclasses.is_dataclass(value):
        return list(_attributes(value).values())
    return None


def _same_unordered(one: Any, other: Any) -> bool:
    if _is_a(one, set | frozenset):
        return set(map(_member, one)) == set(map(_member, other))
    if _is_a(one, dt.datetime | dt.time):
        return one == other and one.utcoffset() == other.utcoffset()
    return bool(one == other)


def _member(value: Any) -> tuple[Any, Any]:
    return _kind(value), repr(value) if _kind(value) in _WRITTEN else value


def _attributes(value: Any) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(value)]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}
