"""Time as a dependency: the protocol, and the clock of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class TimerHandle(Protocol):
    """A scheduled call that can be taken back."""

    def cancel(self) -> None:
        """Take the call back; harmless after it ran."""
        ...


class Clock(Protocol):
    """Where every part gets the time from, and has itself called later."""

    def now(self) -> int:
        """Return microseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> TimerHandle:
        """Call back on the running event loop after `seconds`."""
        ...

    def call_periodically(self, seconds: float, callback: Callable[[], object]) -> TimerHandle:
        """Call back once after `seconds`, for housekeeping that schedules itself again.

        A clock that jumps does not stop for it.
        """
        ...


class Scheduler(Protocol):
    """The part of an event loop that a clock needs."""

    def call_later(self, delay: float, callback: Callable[[], object], /) -> TimerHandle:
        """Schedule a call."""
        ...


class SystemClock:
    """The machine's clock; `scheduler` is the event loop."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def now(self) -> int:
        """Return microseconds since the epoch."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> TimerHandle:
        """Call back on the event loop after `seconds`."""
        return self._scheduler.call_later(max(seconds, 0.0), callback)

    def call_periodically(self, seconds: float, callback: Callable[[], object]) -> TimerHandle:
        """Call back on the event loop after `seconds`, for housekeeping."""
        return self._scheduler.call_later(seconds, callback)
