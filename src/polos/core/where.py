"""Conditions on executions: how `where=` is read, what fits, and how values are found by an index.

A scalar has a rank: text that sorts, byte by byte, as the values do. Kinds sort apart: null, false,
true, numbers (by their value, whatever their size), text. `3` and `3.0` are one number, `true` and
`1` are two values, and a condition on one kind never fits another.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

from pydantic_core import from_json

from polos.core import ids, paths, spans
from polos.core.delta import Fields, encoded
from polos.core.ids import is_storable, is_unicode
from polos.core.indexed import IndexEntry
from polos.core.model import Execution, Start, Status
from polos.core.paths import MISSING, Path
from polos.core.spans import Span
from polos.errors import UsageError

RANK_MAX = 256
"""Characters of a rank that an index keeps."""
CONDITIONS_MAX = 50
VALUES_MAX = 1000

ORDERED = ("<", "<=", ">", ">=")
OPERATORS = ("=", "!=", *ORDERED, "in", "contains", "exists")
DOCUMENTS = ("state", "payload", "result", "tags")
TIMES = ("created_at", "started_at", "completed_at")
TEXTS = (
    *("status", "workflow_id", "root_workflow_id", "session_id", "user_id"),
    *("deployment_id", "queue_name", "concurrency_key", "code_version"),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LAST = (1 << 48) * 1000 - 1
"""The last microsecond that an id can have."""
_TOP = 50_000
_EXACT = 18
"""Whole numbers of so many digits are ints when they are read again."""
_NINES = str.maketrans("0123456789", "9876543210")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: what stands at a path, or in a column, compared with a value."""

    source: str
    """One of `DOCUMENTS`, `TIMES` or `TEXTS`."""
    path: Path
    op: str
    value: Any
    """A scalar; a tuple of them for `in`; True or False for `exists`; microseconds for times."""

    @property
    def name(self) -> str:
        """The place as text: `state.customer_id`."""
        return paths.spell((self.source, *self.path))

    @property
    def is_column(self) -> bool:
        """Say whether it is about a column of the execution itself."""
        return self.source not in DOCUMENTS


def parse(where: Any) -> tuple[Condition, ...]:
    """Read `where=`: `{"state.done": 3, "created_at": (">", moment)}`; all conditions must fit.

    A value stands for `("=", value)`; a list of pairs gives several conditions for one place.
    UsageError says what cannot be read.
    """
    if where is None:
        return ()
    if not isinstance(where, Mapping):
        raise UsageError(f'where={where!r}: expected a dict such as {{"state.done": (">", 3)}}')
    found: list[Condition] = []
    for name, given in cast("Mapping[Any, Any]", where).items():
        source, path = place(name)
        found += [condition(source, path, op, value) for op, value in _pairs(name, given)]
    if len(found) > CONDITIONS_MAX:
        raise UsageError(f"where has {len(found)} conditions; at most {CONDITIONS_MAX} are allowed")
    return tuple(found)


def place(name: Any) -> tuple[str, Path]:
    """Read what a condition is about: (source, path)."""
    source, *path = paths.parse(name)
    if not all(is_storable(each) for each in path if isinstance(each, str)):
        raise UsageError(f"{name!r} has a character that no database can look for")
    if source in DOCUMENTS:
        return str(source), tuple(path)
    if source in (*TIMES, *TEXTS) and not path:
        return str(source), ()
    raise UsageError(
        f"{name!r} is no place; expected state, payload, result or tags, with a path "
        f"(state.done) or without, or one of {', '.join((*TIMES, *TEXTS))}"
    )


def _pairs(name: Any, given: Any) -> list[tuple[Any, Any]]:
    if isinstance(given, tuple | list):
        items = cast("Sequence[Any]", given)
        if items and isinstance(items[0], str) and items[0] in OPERATORS and len(items) <= 2:
            if len(items) == 1 and items[0] == "exists":
                return [("exists", True)]
            if len(items) == 2:
                return [(items[0], items[1])]
        elif items and all(isinstance(each, tuple | list) for each in items):
            return [pair for each in items for pair in _pairs(name, each)]
        raise UsageError(
            f"where: {name!r}: {given!r} is no condition; expected a value, or (operator, value) "
            f"with one of {', '.join(OPERATORS)}"
        )
    return [("=", given)]


def condition(source: str, path: Path, op: str, value: Any) -> Condition:
    """Return a condition, checked."""
    name = paths.spell((source, *path))
    if op == "exists":
        if not isinstance(value, bool):
            raise UsageError(f"where: {name} exists: expected True or False, not {value!r}")
        return Condition(source, path, op, value)
    if op == "in":
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise UsageError(f"where: {name} in: expected a list of values, not {value!r}")
        values = tuple(_value(source, name, op, each) for each in cast("Iterable[Any]", value))
        if len(values) > VALUES_MAX:
            raise UsageError(f"where: {name} in: {len(values)} values; at most {VALUES_MAX}")
        return Condition(source, path, op, values)
    return Condition(source, path, op, _value(source, name, op, value))


def _value(source: str, name: str, op: str, value: Any) -> Any:
    if source in TIMES:
        if op == "contains":
            raise UsageError(f"where: {name} is a moment; it does not contain anything")
        return None if value is None and op in ("=", "!=") else _moment(name, value)
    if source in TEXTS and not (isinstance(value, str) or (value is None and op in ("=", "!="))):
        raise UsageError(f"where: {name} is text; compare it with a str, not {value!r}")
    if isinstance(value, str) and not is_unicode(value):
        raise UsageError(f"where: {name} {op} {value!r}: text with a lone surrogate is nowhere")
    if source in TEXTS and value is not None and "\x00" in value:
        raise UsageError(f"where: {name} {op} {value!r}: text with a NUL is nowhere")
    if source == "status" and op in ("=", "!=", "in") and value not in (None, *Status):
        raise UsageError(f"where: status {op} {value!r}: expected one of {', '.join(Status)}")
    plain = value is None or isinstance(value, bool | int | float | str)
    if not plain or (isinstance(value, float) and math.isnan(value)):
        raise UsageError(
            f"where: {name} {op} {value!r}: expected a number, a str, True, False or None; compare "
            "with what stands in the JSON"
        )
    if op in ORDERED and (value is None or isinstance(value, bool)):
        raise UsageError(f"where: {name} {op} {value!r}: only numbers and text have an order")
    return str(value) if isinstance(value, str) else value


def _moment(name: str, value: Any) -> int:
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
    if not isinstance(found, datetime) or found.utcoffset() is None:
        raise UsageError(
            f"where: {name}: {value!r} is no moment; expected an aware datetime, or ISO 8601 text "
            "with its offset from UTC such as 2026-01-31T12:00:00+00:00"
        )
    return (found - EPOCH) // timedelta(microseconds=1)


# -- does it fit? ---------------------------------------------------------------------------------


def fits(each: Condition, found: Any) -> bool:
    """Say whether a condition on a document, or a column, fits what was found (or `MISSING`)."""
    if each.op == "exists":
        return (found is not MISSING) == each.value
    if found is MISSING:
        return False
    if each.op == "contains":
        return _contains(found, each.value)
    if isinstance(found, dict | list):
        return each.op == "!="
    mine = rank(found)
    if each.op == "in":
        return mine in {rank(value) for value in each.value}
    other = rank(each.value)
    if each.op in ORDERED and mine[:1] != other[:1]:
        return False
    return _COMPARED[each.op](mine, other)


def _contains(found: Any, value: Any) -> bool:
    if isinstance(found, str):
        return isinstance(value, str) and value in found
    if isinstance(found, dict):
        return isinstance(value, str) and value in found
    if not isinstance(found, list):
        return False
    wanted = rank(value)
    items = cast("list[Any]", found)
    return any(not isinstance(each, dict | list) and rank(each) == wanted for each in items)


_COMPARED: dict[str, Callable[[str, str], bool]] = {
    "=": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


def found_in(each: Condition, record: Execution, state: Fields | None) -> Any:
    """Return what an execution has at the place of a condition on a document."""
    if each.source == "state":
        return MISSING if state is None else at(state, each.path)
    text = {"payload": record.payload, "result": record.result, "tags": record.tags}[each.source]
    return MISSING if text is None else paths.value_at(from_json(text), each.path)


def at(fields: Fields, path: Path) -> Any:
    """Return what a recorded state has at a path; without one it is the whole state."""
    if not path:
        return from_json(encoded(fields))
    text = fields.get(str(path[0]))
    return MISSING if text is None else paths.value_at(from_json(text), path[1:])


# -- ranks ----------------------------------------------------------------------------------------


def rank(value: Any) -> str:
    """Return the rank of a scalar; an array or object has one that says no more."""
    if value is None:
        return "0"
    if value is False or value is True:
        return "1t" if value else "1f"
    if isinstance(value, int | float):
        return "2" + _number_rank(value)
    if isinstance(value, str):
        # PostgreSQL has no place for a NUL in text.
        return "3" + value.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return "4"


def _number_rank(value: float) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "e" if math.isnan(value) else "d" if value > 0 else "@"
    exact = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    _, digits, _ = exact.as_tuple()
    text = "".join(map(str, digits)).strip("0")
    if not text:
        return "b"
    power = min(max(exact.adjusted() + _TOP, 0), 2 * _TOP - 1)
    if exact > 0:
        return f"c{power:05d}{text}"
    return f"a{2 * _TOP - 1 - power:05d}{text.translate(_NINES)}~"


def unranked(text: str) -> Any:
    """Return the value that has a rank; of long text what the index keeps of it."""
    kind, rest = text[0], text[1:]
    if kind == "3":
        return rest.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
    if kind != "2":
        return {"0": None, "1f": False, "1t": True}.get(text)
    if rest in _STRANGE:
        return _STRANGE[rest]
    power, digits = int(rest[1:6]) - _TOP, rest[6:]
    if rest[0] == "a":
        power, digits = _TOP - 1 - int(rest[1:6]), digits.rstrip("~").translate(_NINES)
    sign = "-" if rest[0] == "a" else ""
    number = Decimal(f"{sign}{digits}E{power - len(digits) + 1}")
    is_whole = power >= len(digits) - 1
    if is_whole and (power < _EXACT or rank(float(number)) != text):
        return int(number)
    return float(number)


_STRANGE: dict[str, Any] = {"b": 0, "d": math.inf, "@": -math.inf, "e": math.nan}


# -- what an index holds --------------------------------------------------------------------------


def entry(workflow_id: str, name: str, value: Any) -> IndexEntry:
    """Return what the index holds of a value (or `MISSING`) at a place."""
    if value is MISSING:
        return IndexEntry(workflow_id, name, None)
    number = None
    if type(value) in (int, float) and not math.isnan(value):
        number = float(value) if abs(value) < 1e308 else None
    return IndexEntry(workflow_id, name, rank(value)[:RANK_MAX], number)


def entries(workflow_id: str, names: Iterable[str], fields: Fields) -> list[IndexEntry]:
    """Return what the index holds of a state at declared places (`state.customer_id`)."""
    return [entry(workflow_id, name, at(fields, parsed(name)[1:])) for name in names]


def tag_entries(workflow_id: str, tags: Mapping[str, str]) -> list[IndexEntry]:
    """Return what the index holds of tags."""
    return [entry(workflow_id, paths.spell(("tags", name)), value) for name, value in tags.items()]


def tag(start: Start, tags: Mapping[str, str] | None) -> None:
    """Give a start its tags, by which it is found."""
    if tags:
        start.tags = json.dumps(dict(tags))
        start.index = [*start.index, *tag_entries(start.workflow_id, tags)]


@functools.lru_cache(maxsize=4096)
def parsed(name: str) -> Path:
    """Read a declared place."""
    return paths.parse(name)


# -- what a store is asked ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query:
    """What a store finds by itself: all of it in columns and in the index."""

    filters: Mapping[str, Any]
    """Columns with the value that they have; `before`: only ids below."""
    columns: tuple[Condition, ...] = ()
    indexed: tuple[Condition, ...] = ()
    place: str | None = None
    """The place by whose values executions are looked up; the workflow is in `filters`."""
    spans: tuple[Span, ...] = ()
    """Where its values have to be; those conditions are not in `indexed`."""
    merged: bool = False
    """Look at each value there by itself, and merge what is newest: for few values."""
    by_status: bool = False
    """Go through those with the status in `filters`, by the index of what is open or failed."""
    since: str | None = None
    """Only this id and later ones."""
    until: str | None = None
    """Only ids below."""
    newest: int | None = None
    """Only among so many newest ones of the workflow."""
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """A group of executions: how many, and the sum of a place of theirs."""

    group: Any
    count: int
    total: float | None = None


def is_indexable(each: Condition) -> bool:
    """Say whether an index of the place answers the condition."""
    if each.op == "contains":
        return each.source == "tags"
    if each.op == "exists":
        return True
    given = each.value if each.op == "in" else (each.value,)
    return all(len(rank(value)) < RANK_MAX for value in given)


def rank_range(each: Condition) -> tuple[str, str]:
    """Return the ranks between which values of the condition's kind are: from, up to."""
    kind = rank(each.value)[0]
    return kind, chr(ord(kind) + 1)


def has_spans(each: Condition) -> bool:
    """Say whether spans of ranks tell exactly what fits."""
    return each.op != "contains" and not (each.op == "exists" and not each.value)


def spans_of(each: Condition) -> Sequence[Span]:
    """Return where the ranks are that fit a condition."""
    if each.op == "exists":
        return spans.EVERYTHING
    if each.op == "in":
        return [spans.point(one) for one in sorted({rank(value) for value in each.value})]
    mine = rank(each.value)
    if each.op == "=":
        return [spans.point(mine)]
    if each.op == "!=":
        return [Span("", mine), Span(mine, None, with_low=False)]
    start, end = rank_range(each)
    if each.op in ("<", "<="):
        return [Span(start, mine, with_high=each.op == "<=")]
    return [Span(mine, end, with_low=each.op == ">=")]


def ids_of(columns: Iterable[Condition]) -> tuple[str | None, str | None]:
    """Return between which ids executions are that were created as conditions say: from, up to.

    An id has the milliseconds of `created_at`.
    """
    since: list[str] = []
    until: list[str] = []
    for each in columns:
        if each.source != "created_at" or each.op in ("!=", "exists") or each.value is None:
            continue
        moments = each.value if each.op == "in" else (each.value,)
        if each.op in ("=", "in", ">", ">="):
            since.append(ids.first_id(_within(min(moments, default=0))))
        if each.op in ("=", "in", "<", "<="):
            until.append(ids.first_id(_within(max(moments, default=0) + 1000)))
    return max(since, default=None), min(until, default=None)


def _within(moment: int) -> int:
    return min(max(moment, 0), _LAST)
