"""An ask: one call of `ctx.step` from the moment the code makes it until it has its answer."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from polos.core.model import Row


class Ask:
    """One call of `ctx.step`; see `Attempt.ask`."""

    row: Row | None = None
    """What the journal has for it."""
    opened: Row | None = None
    """Its open row, while it waits."""
    seq = 0
    attempts = 1
    started_at = 0
    due: int | None = None
    timer: Any = None
    on_item: Callable[[Any], None] | None = None
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


def call_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return the digest of a call: the function's name and its encodable arguments."""
    name: str = getattr(function, "__name__", None) or type(function).__name__
    if not args and not kwargs:
        return name
    digest = 0
    for value in (*args, *kwargs.items()):
        try:
            digest = zlib.crc32(to_json(value), digest)
        except (PydanticSerializationError, ValueError, TypeError):
            continue
    return f"{name}:{digest:08x}"
