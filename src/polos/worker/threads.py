"""Threads for plain functions: daemons, context variables kept, an abandoned one is replaced.

`concurrent.futures` joins its threads at exit; a step that hangs must not keep the process.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

Job = tuple[Callable[[], Any], Context, asyncio.AbstractEventLoop, asyncio.Future[Any]]


class Threads:
    """At most `size` threads at once, started as they are needed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.abandoned = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run a plain function in a thread, in a copy of the caller's context.

        If the caller is cancelled meanwhile, the thread is abandoned: its result is dropped and
        another thread takes its place.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            self._busy += 1
            if self._started < self._busy and self._started < self.size + self.abandoned:
                self._started += 1
                threading.Thread(target=self._work, name="polos-step", daemon=True).start()
        self._jobs.put((function, copy_context(), loop, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():  # and not raised by the function itself
                with self._lock:
                    self.abandoned += 1
            raise

    @property
    def busy(self) -> int:
        """How many functions run or wait for a thread."""
        return self._busy

    def close(self) -> None:
        """Let idle threads go; running ones end with their function."""
        for _ in range(self._started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, context, loop, future = job
            if future.cancelled():
                self._release(lost=True)
                continue
            try:
                value, error = context.run(function), None
            except BaseException as raised:
                value, error = None, raised
            lost = future.cancelled()
            self._release(lost=lost)
            try:
                loop.call_soon_threadsafe(_settle, future, value, error)
            except RuntimeError:  # the loop was closed; nobody waits any more
                return

    def _release(self, *, lost: bool) -> None:
        with self._lock:
            self._busy -= 1
            if lost:
                self.abandoned -= 1


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, StopIteration):
        future.set_exception(RuntimeError(f"the step raised StopIteration: {error}"))
    else:
        future.set_exception(error)
