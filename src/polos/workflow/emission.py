"""What `ctx.emit` takes and returns: a chunk as JSON, and its way to the store."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError, to_json

from polos.core.blob import Taken
from polos.core.content import Dumped
from polos.core.readable import LEVELS_MAX, demand_readable
from polos.errors import EncodeError


class Way(Protocol):
    """The chunks of an attempt that are on their way to the store."""

    def is_free(self) -> bool:
        """Say whether the code may go on at once."""
        ...

    def wait(self, number: int) -> Coroutine[Any, Any, None]:
        """Wait until there is room, or until all before and with a chunk is durable."""
        ...


class Emission:
    """A chunk that was streamed out; need not be awaited (see `WorkflowContext.emit`)."""

    __slots__ = ("_number", "_way")

    def __init__(self, way: Way, number: int) -> None:
        self._way = way
        self._number = number

    def __await__(self) -> Generator[Any, None, None]:
        if not self._way.is_free():
            yield from self.wait_for_room().__await__()

    async def wait_for_room(self) -> None:
        """Wait while too much is on its way to the store."""
        await self._way.wait(0)

    async def durable(self) -> None:
        """Wait until the chunk is stored, and readers can see it."""
        await self._way.wait(self._number)


def dump_chunk(data: Any, step_key: str | None) -> Dumped:
    """Return a chunk as JSON text; EncodeError if it is none."""
    taken = Taken()
    if isinstance(data, bytes | bytearray | memoryview):
        raise EncodeError(
            f"{_named(step_key)}: bytes are no JSON; decode them, or make base64 or hex text of "
            "them"
        )
    try:
        text = to_json(data, inf_nan_mode="constants", context=taken, fallback=taken.write)
        # Asked first since nearly no chunk is deep, or has such a number.
        deep = text.count(b"[") + text.count(b"{") > LEVELS_MAX
        if deep or b"NaN" in text or b"Infinity" in text:
            demand_readable(text.decode())
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise EncodeError(
            f"{_named(step_key)} cannot be streamed as JSON: {error}; emit dicts, lists, strings, "
            "numbers, booleans, None, or models of these"
        ) from error
    return Dumped(text.decode(), taken.contents)


def _named(step_key: str | None) -> str:
    return "a chunk" if step_key is None else f"a chunk of step {step_key!r}"
