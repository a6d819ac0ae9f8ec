"""A clock that stands still until somebody moves it, or until everybody waits for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

QUIET_TURNS = 20
"""Loop turns without anything to do after which everybody is taken to be waiting for the clock."""


class ManualTimer:
    """A scheduled call; see `ManualClock.call_later`."""

    __slots__ = ("_callback", "at", "cancelled", "periodic")

    def __init__(self, at: float, callback: Callable[[], object], *, periodic: bool) -> None:
        self.at = at
        self.periodic = periodic
        self.cancelled = False
        self._callback = callback

    def cancel(self) -> None:
        """Take the call back."""
        self.cancelled = True

    def fire(self) -> None:
        """Call back, once."""
        if not self.cancelled:
            self.cancelled = True
            self._callback()


class ManualClock:
    """Virtual time: starts at `start` (seconds since the epoch), moves by `advance`.

    With `auto` (the default) it jumps to the next timer as soon as the event loop has nothing else
    to do and `busy()` is false, so that waits of any length take no time.
    """

    def __init__(self, start: float = 1_700_000_000.0, *, auto: bool = True) -> None:
        self._now = start
        self._begin = start
        self._auto = auto
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._numbers = itertools.count()
        self._watching: asyncio.Task[None] | None = None
        self.busy: Callable[[], bool] = lambda: False

    def now(self) -> int:
        """Return microseconds since the epoch."""
        return round(self._now * 1e6)

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._now - self._begin

    def call_later(self, seconds: float, callback: Callable[[], object]) -> ManualTimer:
        """Call back when the clock has moved by `seconds`."""
        return self._push(seconds, callback, periodic=False)

    def call_periodically(self, seconds: float, callback: Callable[[], object]) -> ManualTimer:
        """Call back for housekeeping: the clock does not stop for it."""
        return self._push(seconds, callback, periodic=True)

    def _push(
        self, seconds: float, callback: Callable[[], object], *, periodic: bool
    ) -> ManualTimer:
        timer = ManualTimer(self._now + max(seconds, 0.0), callback, periodic=periodic)
        heapq.heappush(self._timers, (timer.at, next(self._numbers), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move the clock on and fire what is due, each once."""
        self._now += seconds
        due: list[ManualTimer] = []
        while self._timers and self._timers[0][0] <= self._now:
            due.append(heapq.heappop(self._timers)[2])
        for timer in due:
            timer.fire()

    def jump(self, seconds: float) -> None:
        """Move the clock on from wherever: what is due fires when the event loop comes to it."""
        self._now += seconds
        asyncio.get_running_loop().call_soon(self.advance, 0.0)

    def next_timer(self) -> float | None:
        """Return the seconds until the next timer that is not housekeeping."""
        moments = [t.at for _, _, t in self._timers if not (t.cancelled or t.periodic)]
        return max(min(moments) - self._now, 0.0) if moments else None

    # -- jumping ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to watch the running event loop, if the clock moves by itself."""
        if self._auto and self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
            self._watching = None

    async def _watch(self) -> None:
        ready: Any = getattr(asyncio.get_running_loop(), "_ready", ())
        quiet = 0
        while True:
            await asyncio.sleep(0)
            if len(ready) > 0 or self.busy():
                quiet = 0
                if self.busy():
                    await asyncio.sleep(0.0005)  # a thread works: real time has to pass
                continue
            quiet += 1
            if quiet < QUIET_TURNS:
                continue
            quiet = 0
            step = self.next_timer()
            if step is None:
                # Nobody waits for a moment: whatever comes now comes from outside, or from the
                # housekeeping, which goes on at its own pace.
                await asyncio.sleep(0.0005)
                self.advance(0.025)
            else:
                self.advance(step)
