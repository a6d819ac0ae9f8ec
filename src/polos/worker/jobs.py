"""The worker's own jobs: tasks in the context of its start, once or periodically."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from polos.core.clock import Clock

log = logging.getLogger("polos.worker")

ENDING_SECONDS = 3.0


class Jobs:
    """Runs jobs until `stop`; one that fails is logged, and nothing else of the worker stops."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context, clock: Clock) -> None:
        self._loop = loop
        self._context = context
        self._clock = clock
        self._running: set[asyncio.Task[Any]] = set()
        self._timers: list[Any] = []
        self._stopped = False

    @property
    def has_timers(self) -> bool:
        """Say whether a job is done periodically."""
        return bool(self._timers)

    def spawn(self, job: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a job in a task of its own."""
        task = asyncio.Task(job, loop=self._loop, context=self._context.copy())
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._stopped:
            log.error("worker: %s; it tries again", error, exc_info=error)

    def every(self, seconds: float, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a job again so many seconds after it was done."""
        place = len(self._timers)

        async def once() -> None:
            try:
                await job()
            finally:
                if not self._stopped:
                    self._timers[place] = self._clock.call_periodically(
                        seconds, lambda: self.spawn(once())
                    )

        self._timers.append(self._clock.call_periodically(seconds, lambda: self.spawn(once())))

    def close(self) -> None:
        """Begin no further round, and log no failure any more."""
        self._stopped = True

    def stop(self) -> None:
        """Cancel what runs and what would come."""
        self.close()
        for timer in self._timers:
            timer.cancel()
        for task in list(self._running):
            task.cancel()

    async def ended(self) -> None:
        """Return when all that was cancelled is over, or a database that says nothing holds it."""
        if self._running:
            await asyncio.wait(self._running, timeout=ENDING_SECONDS)
