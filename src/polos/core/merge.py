"""What a step's body changed, as operations on JSON that also fit a state that has moved on."""

# Journal format (JOURNAL 13). A change is a list of operations, applied in order. A path leads from
# the whole value to a place: keys of objects, indexes of arrays.
#
#   ["set", path, value]           the place now holds the value: the later change wins
#   ["new", path, value]           as "set", but if the place exists by then the two are joined
#   ["del", path]                  the key is gone
#   ["add", path, number, value]   the number grew by `number`, to `value`
#   ["sum", path, text, value]     the same for a decimal number, which JSON holds as a string
#   ["append", path, values]       the array grew at its end
#   ["put", path, values]          the set, which JSON holds as an array, has these members as well
#   ["drop", path, values]         the set has lost these members
#   ["last", path, keys]           of the object's keys, these come last, in this order
#
# Applying never fails, whatever the value is by then. A place whose surroundings are gone stays
# gone; one that holds another kind of value than before takes the later one.

import decimal
import json
import marshal
import math
from collections.abc import Callable
from typing import Any, Literal, TypeGuard

Ops = list[list[Any]]
Path = list[str | int]

# What JSON does not show about a place: its members have no order ("members"), it is a decimal
# number ("decimal"), or numbers at or below it are names of something and must not be added up
# ("names").
Sort = Literal["", "members", "decimal", "names"]

_kind: Callable[[Any], Any] = type
_SCALARS = frozenset({str, int, bool, type(None)})
# Sums of decimals are exact: the widest that fits in a state has fewer digits than this.
_EXACT = decimal.Context(prec=2_000, traps=[])


def _unknown(path: Path) -> Sort:
    return ""


def changes(base: Any, new: Any, sort: Callable[[Path], Sort] = _unknown) -> Ops:
    """Return the operations that make `new` of `base`; none if the two are equal.

    Both are JSON as Python reads it. Types count: 1, 1.0 and true are three values. So does the
    order of keys: a dict may be a cache that forgets its first.
    """
    differ = _Differ(sort)
    differ.compare(base, new)
    return differ.ops


def merge(ops: Ops, value: Any) -> Any:
    """Return `value` with the changes made; shares its unchanged parts, and changes none."""
    return _Merger(value).apply(ops)


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are written alike, but for the order of keys."""
    kind = _kind(one)
    if kind is not _kind(other):
        return False
    if kind is list:
        return len(one) == len(other) and all(map(same, one, other))
    if kind is dict:
        return len(one) == len(other) and all(
            key in other and same(value, other[key]) for key, value in one.items()
        )
    if kind is float:
        return repr(one) == repr(other)
    return one == other


class _Differ:
    """Finds the operations that lead from one value to another."""

    def __init__(self, sort: Callable[[Path], Sort]) -> None:
        self._sort = sort
        self._path: Path = []
        self.ops: Ops = []

    def compare(self, base: Any, new: Any) -> None:
        if _is_object(new) and _is_object(base):
            self._objects(base, new)
        elif _is_array(new) and _is_array(base):
            self._arrays(base, new)
        elif not same(base, new):
            self._values(base, new)

    def _compare_at(self, key: str | int, base: Any, new: Any) -> None:
        kind = _kind(new)
        if kind in _SCALARS and kind is _kind(base) and base == new:
            return
        self._path.append(key)
        self.compare(base, new)
        self._path.pop()

    def _record(self, name: str, *arguments: Any) -> None:
        self.ops.append([name, self._path.copy(), *arguments])

    def _objects(self, base: dict[str, Any], new: dict[str, Any]) -> None:
        for key in base:
            if key not in new:
                self.ops.append(["del", [*self._path, key]])
        for key, value in new.items():
            if key in base:
                self._compare_at(key, base[key], value)
            else:
                self._path.append(key)
                self._created(value)
                self._path.pop()
        if list(base) != list(new):
            self._order(base, new)

    def _order(self, base: dict[str, Any], new: dict[str, Any]) -> None:
        """Record which keys are not where the other operations leave them."""
        left = iter(
            [*(key for key in base if key in new), *(key for key in new if key not in base)]
        )
        wanted = list(new)
        there = 0
        while there < len(wanted) and wanted[there] in left:  # goes on behind the one before
            there += 1
        if there < len(wanted):
            self._record("last", wanted[there:])

    def _created(self, value: Any) -> None:
        sort = self._sort(self._path)
        if sort == "decimal" and _decimal(value) is not None:
            self._record("sum", value, value)
        elif sort == "members" and _is_array(value):
            self._record("put", value)
        else:
            self._record("set" if sort == "names" else "new", value)

    def _arrays(self, base: list[Any], new: list[Any]) -> None:
        if self._sort(self._path) == "members":
            self._members(_by_text(base), _by_text(new))
        elif len(base) == len(new):
            for index, (before, after) in enumerate(zip(base, new, strict=True)):
                self._compare_at(index, before, after)
        elif len(base) < len(new) and self._begins_with(base, new[: len(base)]):
            self._record("append", new[len(base) :])
        else:
            self._record("set", new)

    def _begins_with(self, base: list[Any], head: list[Any]) -> bool:
        """Tell whether an array that is longer begins with this one; record what keys moved."""
        # Equal bytes are the fast answer for large arrays: they tell 1, 1.0 and true apart, too. In
        # unequal ones the keys may be in another order.
        if marshal.dumps(base, 2) == marshal.dumps(head, 2):
            return True
        if not all(map(same, base, head)):
            return False
        for index, (before, after) in enumerate(zip(base, head, strict=True)):
            self._compare_at(index, before, after)
        return True

    def _members(self, base: dict[str, Any], new: dict[str, Any]) -> None:
        dropped = [value for text, value in base.items() if text not in new]
        added = [value for text, value in new.items() if text not in base]
        if dropped:
            self._record("drop", dropped)
        if added:
            self._record("put", added)

    def _values(self, base: Any, new: Any) -> None:
        sort = self._sort(self._path)
        difference: Any = None
        if sort == "decimal":
            difference = _decimal_difference(base, new)
        elif sort != "names":
            difference = _difference(base, new)
        if difference is None:
            self._record("set", new)
        else:
            self._record("sum" if sort == "decimal" else "add", difference, new)


class _Merger:
    """Makes changes to a value of which every container is copied before its first change."""

    def __init__(self, value: Any) -> None:
        # In a box, so that the whole value is a place like any other.
        self._box: list[Any] = [value]
        self._own = {id(self._box)}

    def apply(self, ops: Ops) -> Any:
        for name, path, *arguments in ops:
            parent = self._parent(path)
            if parent is not None:
                key = path[-1] if path else 0
                self._change(name, parent, key, arguments)
        return self._box[0]

    def _parent(self, path: Path) -> Any:
        """Return the container of the place, ready to be changed; None if it is gone."""
        keys: Path = [0, *path]
        container: Any = self._box
        for key in keys[:-1]:
            if not _has(container, key):
                return None
            inner = container[key]
            if not (_is_object(inner) or _is_array(inner)):
                return None
            if id(inner) not in self._own:
                inner = container[key] = inner.copy()
                self._own.add(id(inner))
            container = inner
        fits = _is_object if isinstance(keys[-1], str) else _is_array
        return container if fits(container) else None

    def _change(self, name: str, parent: Any, key: str | int, arguments: list[Any]) -> None:
        exists = _has(parent, key)
        if not exists and isinstance(key, int):
            return  # the array has become too short: the place is gone
        if exists and name == "del":
            del parent[key]
        elif exists:
            parent[key] = _CHANGED[name](parent[key], *arguments)
        elif name not in ("del", "drop", "last"):
            parent[key] = arguments[-1]


def _has(container: Any, key: str | int) -> bool:
    if isinstance(key, str):
        return _is_object(container) and key in container
    return _is_array(container) and 0 <= key < len(container)


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return type(value) is dict


def _is_array(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list


def _number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _decimal(value: Any) -> decimal.Decimal | None:
    """Return the finite decimal that a string spells exactly so, or None."""
    if type(value) is not str:
        return None
    number = _EXACT.create_decimal(value)  # NaN, if it spells something else
    return number if number.is_finite() and str(number) == value else None


def _by_text(values: list[Any]) -> dict[str, Any]:
    return {json.dumps(value, sort_keys=True): value for value in values}


def _difference(base: Any, new: Any) -> float | None:
    """Return the number that added to `base` gives exactly `new`, or None."""
    if not (_number(base) and _number(new)):
        return None
    try:
        difference = new - base
        reached = base + difference
    except OverflowError:
        return None
    if isinstance(difference, float) and not math.isfinite(difference):
        return None
    return difference if same(reached, new) else None


def _decimal_difference(base: Any, new: Any) -> str | None:
    before, after = _decimal(base), _decimal(new)
    if before is None or after is None:
        return None
    difference = _EXACT.subtract(after, before)
    return str(difference) if str(_EXACT.add(before, difference)) == new else None


# What is at a place after an operation, by what is there now.


def _set(now: Any, value: Any) -> Any:
    return value


def _add(now: Any, difference: Any, value: Any) -> Any:
    if not _number(now):
        return value
    try:
        return now + difference
    except OverflowError:
        return value


def _sum(now: Any, difference: Any, value: Any) -> Any:
    before, change = _decimal(now), _decimal(difference)
    if before is None or change is None:
        return value
    total = _EXACT.add(before, change)
    return str(total) if total.is_finite() else value


def _append(now: Any, values: list[Any]) -> list[Any]:
    return [*now, *values] if _is_array(now) else values


def _put(now: Any, values: list[Any]) -> list[Any]:
    if not _is_array(now):
        return values
    there = _by_text(now)
    return now + [value for text, value in _by_text(values).items() if text not in there]


def _drop(now: Any, values: list[Any]) -> Any:
    if not _is_array(now):
        return now
    gone = _by_text(values)
    return [value for text, value in _by_text(now).items() if text not in gone]


def _last(now: Any, keys: list[str]) -> Any:
    if not _is_object(now):
        return now
    moved = {key: now[key] for key in keys if key in now}
    return {key: value for key, value in now.items() if key not in moved} | moved


def _join(now: Any, value: Any) -> Any:
    """Join two values that were made at one place, neither knowing of the other."""
    if _is_object(now) and _is_object(value):
        joined = {key: _join(now[key], value[key]) for key in value if key in now}
        return now | value | joined
    if _is_array(now) and _is_array(value):
        return [*now, *value]
    if _number(now) and _number(value):
        return _add(now, value, value)
    return value


_CHANGED: dict[str, Callable[..., Any]] = {
    "set": _set,
    "new": _join,
    "add": _add,
    "sum": _sum,
    "append": _append,
    "put": _put,
    "drop": _drop,
    "last": _last,
}
