"""Finding workers that are gone, and handing on what they owned; no control plane needed.

Liveness is by worker (DESIGN §3): a free lock, and a counter that stood still for the store's
`death_seconds`, is a death; a counter that stands still for `FROZEN_SECONDS` is a freeze. Both by
the checker's own monotonic clock.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from polos.core.clock import Clock
from polos.core.model import Neighbour, Survey
from polos.store.protocol import Store

log = logging.getLogger("polos.recovery")

FROZEN_SECONDS = 10.0
UNREGISTERED_GRACE_US = 1_000_000
CANCEL_DEADLINE_US = 30_000_000
"""How long a cancelled execution may clean up; past it any worker ends it (DESIGN §2.7)."""
CANCEL_GRACE_US = 2_000_000
"""Left to the owner, who ends its own at the deadline."""


@dataclass(slots=True)
class _Seen:
    counter: int
    since: float


class Recovery:
    """What every worker checks twice a second about the others."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._last_check: float | None = None
        self._live: set[str] = set()
        self.lost = False
        """Whether a worker that was there at the last check is gone, whoever found out."""

    async def run_once(self, survey: Survey) -> int:
        """Take over from the dead; returns how many there were: what waits is free then, too."""
        now = self._clock.monotonic()
        if self._last_check is not None and now - self._last_check > FROZEN_SECONDS / 2:
            self._seen.clear()  # this process itself was frozen: what it saw is stale
        self._last_check = now
        live = {each.worker.id for each in survey.neighbours}
        self.lost = bool(self._live - live)
        self._live = live
        dead = 0
        for each in survey.neighbours:
            if self._is_dead(each, now, steady=survey.steady):
                worker = each.worker
                self._seen.pop(worker.id, None)
                freed = await self._store.stop_worker(worker.id, self._clock.now(), crashed=True)
                dead += 1
                self.lost = True
                log.info(
                    "worker %s (pid %s on %s) is gone; executions to be taken over: %s",
                    worker.id,
                    worker.pid,
                    worker.host,
                    freed,
                )
        return dead

    def _is_dead(self, neighbour: Neighbour, now: float, *, steady: bool) -> bool:
        seen = self._seen.get(neighbour.worker.id)
        if seen is None or seen.counter != neighbour.counter:
            seen = self._seen[neighbour.worker.id] = _Seen(neighbour.counter, now)
        still = now - seen.since
        if not neighbour.locked and steady:
            return still >= self._store.death_seconds
        return still > FROZEN_SECONDS
