"""What one attempt streams out: chunks on their way to the store, gathered into its commits.

A chunk goes into the batch that gathers now, and so is durable with the next record at the latest;
if nothing else is written soon, the batch is sent for its chunks. Which of them an earlier attempt
has brought is told by the commit (`core.streams`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from polos.core import events as rules
from polos.core.content import Dumped
from polos.core.retry import RetryPolicy
from polos.core.streams import CHUNK, END, RESET, StreamEvent, text_of
from polos.errors import AttemptSealed
from polos.worker import generators
from polos.worker.starting import in_memory
from polos.workflow.emission import Emission, dump_chunk
from polos.workflow.scope import Scope, current_scope

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.writer import Batch

GATHER_SECONDS = 0.005
"""So long a chunk waits for others, and for a commit that it can ride with."""
FULL = 512
FULL_BYTES = 1_048_576
"""Chunks, or bytes of them, that are worth a commit at once."""
AHEAD_MAX = 10_000
AHEAD_BYTES = 16_777_216
"""Chunks, or bytes, that may be on their way to the store before those who emit have to wait."""
TURN = 64
"""Chunks after which code that awaits them lets others run, and a thread waits for the loop."""
ROOM_SECONDS = 1.0
"""So long a thread waits before it goes on without an answer."""
_OVER = 1 << 62


class Streams:
    """See `polos.workflow.port.StreamPort`."""

    __slots__ = (
        "_armed",
        "_attempt",
        "_called",
        "_emitted",
        "_fresh",
        "_number",
        "_posted",
        "_settled",
        "_since_room",
        "_threads",
        "_tries",
        "_turn",
        "_waiters",
        "_weight",
        "open",
        "used",
    )

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._fresh = attempt.number <= 1
        """Nothing can have been streamed before."""
        self.used = False
        """Something was streamed."""
        self.open: set[str] = set()
        """Steps that have streamed, and are not recorded yet."""
        self._tries: dict[str, int] = {}
        """Which attempt of a step may stream now."""
        self._number = 0
        """Of the last chunk from around the steps."""
        self._emitted = self._settled = self._weight = 0
        self._posted: deque[tuple[Scope | None, Dumped]] = deque()
        """Chunks that threads have handed over, and the event loop has not taken yet."""
        self._since_room = self._turn = 0
        self._armed = self._called = False
        self._waiters: list[asyncio.Future[None]] = []
        self._threads: list[concurrent.futures.Future[None]] = []

    # -- what `ctx` calls ---------------------------------------------------------------------

    def emit(self, data: Any) -> Emission:
        """Stream a chunk out, from any thread."""
        attempt = self._attempt
        attempt.check_sealed()
        scope = current_scope.get()
        if scope is not None and scope.owner is not attempt:
            scope = None
        body = dump_chunk(data, None if scope is None else scope.key)
        in_memory(body.contents)
        self.used = True
        try:
            here = asyncio.get_running_loop() is attempt.loop
        except RuntimeError:
            here = False
        if not here:
            self._post(scope, body)
            return Emission(_ARRIVED, 0)
        if self._posted:
            self.arrive()
        self._take(scope, body)
        return Emission(self, self._emitted)

    def run(
        self,
        key: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        collect: Callable[[list[Any]], Any] | None,
        policy: RetryPolicy,
        timeout: float | None,
    ) -> Coroutine[Any, Any, Any]:
        """Run a generator once over all attempts, and stream out what it yields."""
        return generators.run(self._attempt, key, function, args, kwargs, collect, policy, timeout)

    # -- taking chunks ------------------------------------------------------------------------

    def _take(self, scope: Scope | None, body: Dumped) -> None:
        if scope is None:
            self._number += 1
            self._add(CHUNK, None, body)
        else:
            self.begin(scope)
            self._add(CHUNK, scope.key, body)

    def begin(self, scope: Scope) -> None:
        """The body of a step streams; what earlier ones of it have streamed is void."""
        key, tries = scope.key, self._tries
        allowed = tries.get(key, 0)
        if scope.attempts == allowed and key in self.open:
            return
        if scope.attempts < allowed:
            raise AttemptSealed(
                f"step {key!r} is over, or runs again: this body of it was given up, and can "
                "stream nothing more"
            )
        if not self._fresh or key in self.open:
            self._add(RESET, key, None)
        tries[key] = scope.attempts
        self.open.add(key)
        self.used = True

    def reset(self, key: str, attempts: int) -> None:
        """The body of a step has failed, and will run again."""
        self.arrive()
        self._tries[key] = attempts + 1
        if key in self.open:
            self._add(RESET, key, None)

    def end(self, key: str) -> None:
        """A step is about to be recorded: nothing more comes of it."""
        self.arrive()
        if key in self.open:
            self.open.remove(key)
            self._tries[key] = _OVER
            self._add(END, key, None)

    def _add(self, type_: str, key: str | None, body: Dumped | None) -> None:
        attempt = self._attempt
        execution = attempt.execution
        self._emitted += 1
        number = self._number if key is None else 0
        # The same whenever it is sent, and no other's.
        id_ = f"{attempt.number}.{self._emitted}" if key else f"{execution.generation}/{number}"
        topic = rules.stream_topic(execution.root_id, execution.id)
        text = text_of(key, None if body is None else body.text)
        event = StreamEvent(topic, id_, type_, text, attempt.clock.now())
        event.root_id, event.execution_id = execution.root_id, execution.id
        event.step_key, event.number, event.generation = key, number, execution.generation
        batch = attempt.writer.open()
        chunks = batch.chunks
        if chunks is None or chunks is not batch.events:
            batch.events = batch.chunks = chunks = [*batch.events]
        chunks.append(event)
        if body is not None and body.contents:
            batch.contents = [*batch.contents, *body.contents]
        batch.streamed += 1
        batch.weight += len(text)
        self._weight += len(text)
        if batch.streamed >= FULL or batch.weight >= FULL_BYTES:
            self.send()
        elif not self._armed:
            self._armed = True
            attempt.clock.call_later(GATHER_SECONDS, self._gathered)

    def _gathered(self) -> None:
        self._armed = False
        self.send()

    def send(self) -> None:
        """Have what has gathered written."""
        attempt = self._attempt
        batch = attempt.writer.unsent()
        if attempt.sealed or batch is None or not batch.streamed:
            return
        if attempt.parked or attempt.parking:
            attempt.runner.spawn(self._own_and_send())
        else:
            attempt.writer.send(batch)

    async def _own_and_send(self) -> None:
        with contextlib.suppress(AttemptSealed):
            await self._attempt.waiting.own()
            self.send()

    # -- threads ------------------------------------------------------------------------------

    def _post(self, scope: Scope | None, body: Dumped) -> None:
        """Hand a chunk to the event loop; now and then wait until it has come as far."""
        self._posted.append((scope, body))
        if not self._called:
            self._called = True
            self._call(self.arrive)
        self._since_room += 1
        if self._since_room >= TURN:
            self._since_room = 0
            room: concurrent.futures.Future[None] = concurrent.futures.Future()
            self._call(self._answer, room)
            # Not for ever: the code of the loop may itself wait for this thread, against the rules.
            with contextlib.suppress(TimeoutError):
                room.result(ROOM_SECONDS)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._attempt.loop.call_soon_threadsafe(function, *arguments, context=Context())
        except RuntimeError:
            raise AttemptSealed("the client was closed; the execution goes on elsewhere") from None

    def arrive(self) -> None:
        """Take what threads have handed over."""
        self._called = False
        while self._posted:
            scope, body = self._posted.popleft()
            with contextlib.suppress(AttemptSealed):  # the thread hears of it at its next chunk
                self._attempt.check_sealed()
                self._take(scope, body)

    def _answer(self, room: concurrent.futures.Future[None]) -> None:
        try:
            self._attempt.check_sealed()
        except AttemptSealed as error:
            room.set_exception(error)
            return
        if self._is_full():
            self._threads.append(room)
        else:
            room.set_result(None)

    # -- waiting for the store ----------------------------------------------------------------

    def _is_full(self) -> bool:
        return self._emitted - self._settled > AHEAD_MAX or self._weight > AHEAD_BYTES

    def is_free(self) -> bool:
        """Say whether the code may go on at once; not always, for others want to run as well."""
        self._turn += 1
        return self._turn % TURN != 0 and not self._is_full()

    async def wait(self, number: int) -> None:
        """Wait until there is room, or (a number) until all up to a chunk is durable."""
        attempt = self._attempt
        if number:
            self.send()
        while self._settled < number or (not number and self._is_full()):
            attempt.check_sealed()
            future: asyncio.Future[None] = attempt.loop.create_future()
            self._waiters.append(future)
            try:
                await future
            except asyncio.CancelledError as error:
                attempt.check_unwinding(error)
                raise
        if not number:
            await asyncio.sleep(0)
        attempt.check_sealed()

    def settle(self, batch: Batch) -> None:
        """A batch is written, or will never be."""
        self._settled += batch.streamed
        self._weight -= batch.weight
        self.release()

    def release(self) -> None:
        """Let those who wait look again."""
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_result(None)
        threads, self._threads = self._threads, []
        for room in threads:
            self._answer(room)


class _Arrived:
    """The way of a chunk that a thread has handed over, which waits in its call."""

    def is_free(self) -> bool:
        """Yes."""
        return True

    async def wait(self, number: int) -> None:
        """Return at once."""


_ARRIVED = _Arrived()
