"""The background job that removes what the workflows of this process keep no longer."""

from __future__ import annotations

import logging
import math
from typing import Any, Protocol

from polos.core.clock import Clock
from polos.core.upkeep import Pruned
from polos.workflow.registry import Registry

log = logging.getLogger("polos.retention")

BUSY_SECONDS = 0.1
"""The pause between rounds while there is more to remove."""
IDLE_SECONDS = 1.0
IDLE_SECONDS_MAX = 60.0
IDLE_SHARE = 10
"""With nothing to remove it looks again after a tenth of the shortest age, a minute at most."""


class EventKeeper(Protocol):
    """Topics, as far as old events are removed."""

    async def prune(self, seconds: float) -> bool:
        """Remove some events of ordinary topics that are older; True: there is more."""
        ...


class Keeper(Protocol):
    """The engine, as far as it removes."""

    clock: Clock
    worker_id: str | None

    @property
    def topics(self) -> EventKeeper:
        """Topics and their events."""
        ...

    async def prune(self, kept: dict[str, float]) -> Pruned:
        """Remove a part of what is due."""
        ...


class Pruning:
    """Rounds of removal, for as long as this process is a worker.

    Only the workflows that it can run: who knows a workflow knows how long it is kept. `default`
    (seconds, or None: for ever) is for those that do not say so themselves; `event_seconds` for the
    events of ordinary topics.
    """

    def __init__(
        self,
        engine: Keeper,
        runner: Any,
        registry: Registry,
        default: float | None,
        event_seconds: float,
    ) -> None:
        self.default = default
        self.event_seconds = event_seconds
        self._events_at = 0.0
        self._engine = engine
        self._runner = runner
        self._registry = registry
        self._timer: Any = None
        self._closed = False
        self._removed = 0

    def begin(self) -> None:
        """Look now and then, from the next second on."""
        self._later(IDLE_SECONDS)

    def close(self) -> None:
        """Begin no further round."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def kept(self) -> dict[str, float]:
        """Return for how many seconds each workflow is kept, without those kept for ever."""
        found: dict[str, float] = {}
        for workflow_id in sorted(self._runner.offering.workflows):
            workflow = self._registry.get(workflow_id)
            own = None if workflow is None else workflow.retention
            seconds = self.default if own is None else own
            if seconds is not None and math.isfinite(seconds):
                found[workflow_id] = seconds
        return found

    def _later(self, seconds: float) -> None:
        def on_time() -> None:
            self._runner.spawn(self._round())

        if not self._closed:
            self._timer = self._engine.clock.call_periodically(seconds, on_time)

    async def _round(self) -> None:
        pause = IDLE_SECONDS_MAX / IDLE_SHARE
        try:
            kept = self.kept()
            if self._engine.worker_id is not None:
                if kept:
                    pause = await self._remove(kept)
                pause = min(pause, await self._remove_events())
        finally:
            self._later(pause)

    async def _remove_events(self) -> float:
        moment = self._engine.clock.monotonic()
        if math.isfinite(self.event_seconds) and moment >= self._events_at:
            if await self._engine.topics.prune(self.event_seconds):
                return BUSY_SECONDS
            wait = min(max(self.event_seconds / IDLE_SHARE, IDLE_SECONDS), IDLE_SECONDS_MAX)
            self._events_at = moment + wait
        return IDLE_SECONDS_MAX if math.isinf(self.event_seconds) else self._events_at - moment

    async def _remove(self, kept: dict[str, float]) -> float:
        done = await self._engine.prune(kept)
        self._removed += done.executions
        if done.left:
            return BUSY_SECONDS
        if self._removed:
            log.info("removed %s executions that were older than their retention", self._removed)
            self._removed = 0
        return min(max(min(kept.values()) / IDLE_SHARE, IDLE_SECONDS), IDLE_SECONDS_MAX)
