"""Removing what is older than its workflow keeps it, some trees at a time."""

from __future__ import annotations

from collections.abc import Mapping

from polos.core.clock import Clock
from polos.core.upkeep import Pruned
from polos.engine import blobs
from polos.store.protocol import Store

TREES_MAX = 100
"""Trees that one round removes: what else is due waits for the next."""


COLLECT_US = 600 * 1_000_000
"""Between two looks for blobs that nobody refers to."""


class Retention:
    """Looks for what is due and removes it; any number of workers may do so at once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._collected_at = clock.now()
        self._next = ""
        """The workflow that the next round begins with, so that none has to wait for ever."""

    async def run_once(self, kept: Mapping[str, float]) -> Pruned:
        """Remove a part of what is due; `kept` says for how many seconds, by workflow.

        `left` names what could not be done in this round, of what was found.
        """
        done = Pruned()
        now = self._clock.now()
        if now - self._collected_at >= COLLECT_US:
            self._collected_at = now
            await blobs.collect(self._store, now)
        turn = sorted(kept, key=lambda each: (each < self._next, each))
        for place, workflow_id in enumerate(turn):
            before = now - round(kept[workflow_id] * 1e6)
            room = TREES_MAX - done.trees
            found = [root for _, root in await self._store.due(workflow_id, before, limit=room)]
            if not found:
                continue
            pruned = await self._store.prune(found, before)
            done.trees += pruned.trees
            done.executions += pruned.executions
            done.rows += pruned.rows
            if pruned.left or done.trees >= TREES_MAX:
                done.left = pruned.left or found[-1:]
                self._next = turn[(place + 1) % len(turn)]
                break
        return done
