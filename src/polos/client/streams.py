"""Reading what the code of an execution streams out: `client.stream`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextvars import Context
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from pydantic_core import from_json

from polos.client import blocking
from polos.client.topics import TopicReader, check_cursor
from polos.core import events as rules
from polos.core.model import Event, Execution
from polos.core.streams import END
from polos.errors import UsageError


@dataclass(slots=True)
class Chunk:
    """A chunk that code has streamed out, or a mark (`type` is `chunk` or `reset`)."""

    offset: int
    """Pass it as `offset` to go on behind this chunk; it grows, not always by 1."""
    type: str
    step_key: str | None
    """The step whose body it comes from; None: the code around the steps."""
    data: Any
    """As decoded from JSON; None for a `reset`."""
    at: datetime


class ChunkStream:
    """An async iterator of `Chunk`; leave its loop when you have enough.

    In code without an event loop a plain `for` reads it, and blocks.
    """

    __slots__ = ("_chunks", "_run")

    def __init__(self, chunks: AsyncGenerator[Chunk], run: Callable[[Any], Any]) -> None:
        self._chunks = chunks
        self._run = run

    def __iter__(self) -> Iterator[Chunk]:
        return blocking.iterate(self._run, lambda: self._chunks)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Stop reading."""
        await self._chunks.aclose()


def open_stream(client: Any, execution_id: str, offset: int, step_key: str | None) -> ChunkStream:
    """Return the chunks of an execution behind an offset; UsageError for what cannot be meant."""
    if not isinstance(cast("Any", execution_id), str) or not execution_id:
        raise UsageError(f"execution_id={execution_id!r}: expected the id of an execution")
    if check_cursor("offset", offset) is None:
        raise UsageError("offset=None: expected the offset of a chunk, or 0 for all of them")
    if step_key is not None and not (isinstance(cast("Any", step_key), str) and step_key):
        raise UsageError(f"step_key={step_key!r}: expected the key of a step, or None for all")
    return ChunkStream(_read(client, execution_id, offset, step_key), client.run_blocking)


async def _read(
    client: Any, execution_id: str, offset: int, step_key: str | None
) -> AsyncGenerator[Chunk]:
    node = await client.node()
    record: Execution = await node.engine.require(execution_id)
    topic = rules.stream_topic(record.root_id, record.id)
    reader = _Reader(client, topic, offset)
    # In a context of its own: it is none of the tasks of a workflow that reads.
    ended: asyncio.Task[Execution] = asyncio.Task(
        node.engine.wait_finished(execution_id), loop=asyncio.get_running_loop(), context=Context()
    )
    ended.add_done_callback(lambda _: reader.ring())
    try:
        while True:
            over = ended.done()
            if over:
                reader.ring()  # what its last commit brought may not have rung here yet
            events = await reader.take(ended)
            for event in events:
                chunk: Chunk = event.shown or _show(event)
                if step_key is not None and chunk.step_key != step_key:
                    continue
                if chunk.type != END:
                    yield chunk
                elif step_key is not None:
                    return
            if over and not events:
                ended.result()
                return
    finally:
        ended.cancel()
        reader.stop(forget=True)


def _show(event: Event) -> Chunk:
    """Decode an event, for all readers of this process."""
    data: dict[str, Any] = from_json(event.data)
    found = (event.type or "", data.get("step_key"), data.get("data"))
    event.shown = chunk = Chunk(event.seq, *found, rules.moment(event.at))
    return chunk


class _Reader(TopicReader):
    """Hands events out in lists; what it keeps ahead of its code, all readers share."""

    buffer_max = 20_000
    read_max = 2000

    async def take(self, ended: asyncio.Future[Any]) -> Collection[Event]:
        """Return what is new, as soon as there is something or nothing comes any more."""
        if not self._buffer:
            await self._fill()
        # It may have ended while the table was read: nobody would ring again.
        if not self._buffer and not ended.done() and not self._behind:
            await self._wait()
        if not self._buffer and self._behind:
            await self._fill()
        taken, self._buffer = self._buffer, deque[Event]()
        if taken:
            self.position = taken[-1].seq
        return taken
