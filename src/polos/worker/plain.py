"""Threads of plain workflow functions: each keeps one while it lives, and those that only wait give
theirs up for others, if there are no more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from polos.worker.threads import Threads

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


class PlainThreads:
    """Runs plain workflow functions; never in the threads of steps, which they wait for."""

    def __init__(self, size: int, evict: Callable[[Attempt], None]) -> None:
        self.threads = Threads(size)
        self._evict = evict
        self._waiting: OrderedDict[str, Attempt] = OrderedDict()
        """What was parked with its thread, the longest ago first."""

    async def run(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """Run the function of an attempt in a thread of its own."""
        if self.threads.busy >= self.threads.size:
            self._free_one()
        try:
            return await self.threads.run(call)
        finally:
            if self._waiting.get(attempt.execution_id) is attempt:
                del self._waiting[attempt.execution_id]

    def parked(self, attempt: Attempt) -> None:
        """An attempt only waits from now on; it may be gone on with in its thread."""
        if attempt.workflow.is_async or attempt.sealed:
            return
        self._waiting[attempt.execution_id] = attempt
        self._waiting.move_to_end(attempt.execution_id)
        if self.threads.busy > self.threads.size:
            self._free_one()

    def _free_one(self) -> None:
        while self._waiting:
            _, attempt = self._waiting.popitem(last=False)
            if attempt.parked and not attempt.sealed:
                self._evict(attempt)
                return
