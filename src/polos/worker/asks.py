"""An ask: one call of `ctx.step` from the moment the code makes it until it has its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from polos.core.model import Row


class Ask:
    """One call of `ctx.step`; see `Attempt.ask`."""

    row: Row | None = None
    """What the journal has for it."""
    opened: Row | None = None
    """Its open row, while it waits."""
    info: str | None = None
    """What its rows say beside their outcome."""
    seq = 0
    attempts = 1
    started_at = 0
    due: int | None = None
    timer: Any = None
    on_item: Callable[[Any], None] | None = None
    on_due: Callable[[], None] | None = None
    """Called when its time is over; None: its moment is its answer."""
    future: asyncio.Future[None] | None = None
    seen = 0
    """Inbox items that came for it, while others are still missing."""
    is_over = False
    """The code has its answer, or does not want one any more."""
    settled = False
    answer: Row | None = None
    value: Any = None
    """The result itself, where decoding its record would give the very same."""

    def __init__(
        self, kind: str, key: str, call: str | None, asked: int, spawned: int, *, alone: bool
    ) -> None:
        self.kind = kind
        self.key = key
        self.call = call
        self.asked = asked
        self.alone = alone
        self.spawned = spawned

    def settle(self, row: Row) -> None:
        """Answer with a row that is handed over."""
        self.answer = row
        self.settled = True
        self.release()

    def release(self) -> None:
        """Let the code go on."""
        if self.future is not None and not self.future.done():
            self.future.set_result(None)

    def refuse(self, error: BaseException) -> None:
        """Raise where the code waits."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


_kind: Callable[[Any], Any] = type
_PLAIN = frozenset({str, int, float, bool, type(None), bytes})
_FIXED = frozenset({list, tuple, dict, deque})
_UNSTEADY = (set, frozenset, Iterator)


def _is_steady(value: Any) -> bool:
    """Say whether a value has the same JSON in every process, and still exists once it is written.

    The order of a set differs from process to process, and an iterator is used up.
    """
    kind = _kind(value)
    if kind in _PLAIN:
        return True
    if kind in _FIXED:
        inner = value.values() if kind is dict else value
        return all(type(each) in _PLAIN or _is_steady(each) for each in inner)
    if isinstance(value, _UNSTEADY):
        return False
    if isinstance(value, BaseModel):
        return all(map(_is_steady, [*vars(value).values(), value.__pydantic_extra__]))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return all(_is_steady(getattr(value, name, None)) for name in names)
    return True


def call_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the digest of a call: the function's name and its steady, encodable arguments."""
    name: str = getattr(function, "__name__", None) or type(function).__name__
    if not args and not kwargs:
        return name
    digest = 0
    for value in (*args, *kwargs.items()):
        try:
            if not _is_steady(value):
                continue
            digest = zlib.crc32(to_json(value), digest)
        except (PydanticSerializationError, ValueError, TypeError, RecursionError):
            continue
    return f"{name}:{digest:08x}"
