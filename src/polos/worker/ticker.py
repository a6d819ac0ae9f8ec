"""The pulse of a worker that has something to do: what readers should see, what others did."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polos.worker.runner import Runner

TICK_SECONDS = 0.1
POLL_SECONDS = 0.025
STARTED_SECONDS = 0.2
"""A body that runs this long gets a *started* row, for readers (JOURNAL 5)."""


class Ticker:
    """Ticks while there are attempts, polls while there may be news from other processes."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._ticking = False
        self._polling = False

    def keep_on(self) -> None:
        """Make sure that the next tick and the next poll come."""
        clock = self._runner.clock
        if not self._ticking:
            self._ticking = True
            clock.call_periodically(TICK_SECONDS, self._tick)
        if not self._polling:
            self._polling = True
            clock.call_periodically(POLL_SECONDS, self._poll)

    def _tick(self) -> None:
        self._ticking = False
        runner = self._runner
        attempts = runner.attempts()
        if runner.closing or not attempts:
            return
        moment = runner.clock.monotonic()
        for attempt in attempts:
            attempt.tick(moment, STARTED_SECONDS, TICK_SECONDS)
        if runner.active:
            self.keep_on()

    def _poll(self) -> None:
        self._polling = False
        runner = self._runner
        if runner.closing:
            return
        runner.look_if_foreign()
        if runner.offering.takes_queue or runner.attempts():
            self.keep_on()
