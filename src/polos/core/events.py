"""The rules of events: names of topics, their envelope as JSON, filters, and who gets what."""

from __future__ import annotations

import json
import operator
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from polos.core import ids, paths
from polos.core.model import Event, Wait
from polos.errors import UsageError

TOPIC_BYTES_MAX = 1024
WORKFLOW = "workflow/"
"""Begins the topics of trees of executions: `workflow/{root_workflow_id}/{root_execution_id}`."""
EACH = '"each"'
"""The filter of a wait whose code looks at every event of the topic itself."""
STREAM = "stream/"
"""Begins the topics of what code streams out: `stream/{root_execution_id}/{execution_id}`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _same(value: Any, wanted: Any) -> bool:
    """Say whether two values are one in JSON, where True is no 1, but 1 is 1.0."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        mine, other = cast("dict[str, Any]", value), cast("dict[str, Any]", wanted)
        return mine.keys() == other.keys() and all(_same(mine[key], other[key]) for key in mine)
    if isinstance(value, list) and isinstance(wanted, list):
        some, more = cast("list[Any]", value), cast("list[Any]", wanted)
        return len(some) == len(more) and all(map(_same, some, more))
    return isinstance(value, bool) == isinstance(wanted, bool) and value == wanted


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(value: Any, wanted: Any) -> bool:
        if isinstance(value, bool) or isinstance(wanted, bool):
            return False  # only numbers, texts and lists have an order
        try:
            return compare(value, wanted)
        except TypeError:  # a text is not greater than a number
            return False

    return holds


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _same,
    "=": _same,
    "!=": lambda value, wanted: not _same(value, wanted),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    "in": lambda value, many: any(_same(value, each) for each in many),
}


def check_topic(topic: Any) -> str:
    """Return a topic that can be stored; UsageError names what is wrong with it."""
    if not isinstance(topic, str) or not topic:
        raise UsageError(f"topic {topic!r}: expected a non-empty string")
    if not ids.is_storable(topic):
        raise UsageError(
            f"topic {topic!r} holds a NUL or a lone surrogate, which no database takes; leave it "
            "out"
        )
    size = len(topic.encode())
    if size > TOPIC_BYTES_MAX:
        raise UsageError(
            f"topic {topic[:40]!r}… has {size:,} bytes; at most {TOPIC_BYTES_MAX:,} are allowed"
        )
    return topic


def check_type(event_type: Any) -> str | None:
    """Return a type of events that can be stored, or None; UsageError otherwise."""
    if event_type is None:
        return None
    if not isinstance(event_type, str) or not ids.is_storable(event_type):
        raise UsageError(f"event_type {event_type!r}: expected a string without NUL, or None")
    if len(event_type.encode()) > TOPIC_BYTES_MAX:
        raise UsageError(
            f"event_type {event_type[:40]!r}… is too long; at most {TOPIC_BYTES_MAX:,} bytes are "
            "allowed"
        )
    return event_type


def workflow_topic(root_workflow_id: str, root_id: str) -> str:
    """Return the topic of a tree of executions."""
    return f"{WORKFLOW}{root_workflow_id}/{root_id}"


def root_of(topic: str) -> str | None:
    """Return the root whose tree a topic tells of, or None for an ordinary topic."""
    if not topic.startswith(WORKFLOW):
        return None
    workflow_id, _, root_id = topic[len(WORKFLOW) :].rpartition("/")
    return root_id if workflow_id and root_id else None


def stream_topic(root_id: str, execution_id: str) -> str:
    """Return the topic of what the code of an execution streams out."""
    return f"{STREAM}{root_id}/{execution_id}"


def bell(topic: str) -> str:
    """Return what is rung for a topic: a name of any length and content would not do."""
    return f"topic:{zlib.crc32(topic.encode()):08x}"


def moment(at: int) -> datetime:
    """Return microseconds since the epoch as a datetime."""
    return _EPOCH + timedelta(microseconds=at)


def microseconds(at: datetime) -> int:
    """Return a datetime as microseconds since the epoch; one without time zone is UTC."""
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return (at - _EPOCH) // timedelta(microseconds=1)


def envelope(event: Event) -> str:
    """Return an event as the JSON that an execution gets, its data as they stand."""
    return (
        f'{{"id":{json.dumps(event.id)},"sequence_id":{event.seq},'
        f'"topic":{json.dumps(event.topic)},"event_type":{json.dumps(event.type)},'
        f'"data":{event.data},"created_at":{json.dumps(moment(event.at).isoformat())}}}'
    )


# -- filters ------------------------------------------------------------------------------------


def dump_filter(where: Any) -> str:
    """Return a filter as it is stored; UsageError if it can fit nothing or cannot be stored.

    Keys are paths into the data (`"order.items[0].total"`), values what must stand there, or a
    tuple of an operator (`==`, `!=`, `>`, `>=`, `<`, `<=`, `in`) and a value.
    """
    if not isinstance(where, Mapping) or not where:
        raise UsageError(
            f"filter {where!r}: expected a dict of paths and values, or a function of the event"
        )
    found: list[tuple[paths.Path, str, Any]] = []
    for path, condition in cast("Mapping[Any, Any]", where).items():
        if not isinstance(path, str) or not path:
            raise UsageError(f"filter {path!r}: expected a path such as 'order.total'")
        found.append((paths.parse(path), *_condition(path, condition)))
    try:
        text = json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"filter {where!r}: its values must be JSON: {error}") from error
    if not ids.is_storable(text) or len(text) > 1_000_000:
        raise UsageError("filter: it is too large, or holds text that no database takes")
    return text


def _condition(path: str, condition: Any) -> tuple[str, Any]:
    if not isinstance(condition, tuple):
        return "==", condition
    pair = cast("tuple[Any, ...]", condition)
    if len(pair) != 2 or pair[0] not in _OPERATORS:
        known = ", ".join(_OPERATORS)
        raise UsageError(f"filter {path!r}: {pair!r} is no pair of an operator ({known}) and value")
    value: Any = pair[1]
    if pair[0] == "in" and not isinstance(value, list | tuple):
        raise UsageError(f"filter {path!r}: 'in' wants a list of values, not {value!r}")
    return str(pair[0]), cast("Any", value)


def fits(filter_: str | None, event: Event) -> bool:
    """Say whether an event has what a filter asks for."""
    if filter_ is None or filter_ == EACH:
        return True
    whole = {"event_type": event.type, "topic": event.topic, "data": json.loads(event.data)}
    return all(_holds(whole, path, name, value) for path, name, value in json.loads(filter_))


def _holds(whole: dict[str, Any], path: Sequence[str | int], name: str, wanted: Any) -> bool:
    value = paths.value_at(whole["data"], path)
    if value is paths.MISSING:
        value = paths.value_at(whole, path)
    return value is not paths.MISSING and _OPERATORS[name](value, wanted)


# -- delivery -----------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Delivery:
    """An event for the inbox of an execution that waits."""

    wait: Wait
    event: Event
    id: str
    """The item's: the same however often the event is brought."""
    ends: bool
    """The wait is over with it."""


def item_id(seq: int, event_seq: int | None = None) -> str:
    """Return the id of the inbox item for the wait of a row: one, or one for each event."""
    return f"event/{seq}" if event_seq is None else f"event/{seq}/{event_seq:016d}"


def item_ref(seq: int) -> str:
    """Return what the inbox items for the wait of a row refer to."""
    return f"event/{seq}"


def deliveries(waits: Iterable[Wait], published: Iterable[Event]) -> list[Delivery]:
    """Return who gets what: the first event that fits, or each one where the code looks itself."""
    by_topic: dict[str, list[Event]] = {}
    for event in published:
        by_topic.setdefault(event.topic, []).append(event)
    found: list[Delivery] = []
    for wait in waits:
        for event in by_topic.get(wait.topic or "", ()):
            if wait.filter == EACH:
                found.append(Delivery(wait, event, item_id(wait.seq, event.seq), ends=False))
            elif fits(wait.filter, event):
                found.append(Delivery(wait, event, item_id(wait.seq), ends=True))
                break
    return found
