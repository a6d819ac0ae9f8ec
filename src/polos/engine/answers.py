"""The verbs on suspensions: answer one, let the time of one be over, list those that are open."""

from __future__ import annotations

from collections.abc import Callable

from polos.core import ids
from polos.core.clock import Clock
from polos.core.suspension import Accepted, Answer, Suspension
from polos.errors import ExecutionNotFoundError
from polos.store.protocol import Store


class Answers:
    """`came` is called with the id of an execution whose inbox got something."""

    def __init__(self, store: Store, clock: Clock, came: Callable[[str], None]) -> None:
        self._store = store
        self._clock = clock
        self._came = came

    async def resume(self, answer: Answer) -> Accepted:
        """Answer a suspension, or keep the answer until the code suspends; it is durable then."""
        if not ids.is_storable(answer.execution_id):
            raise ExecutionNotFoundError(answer.execution_id)
        accepted = await self._store.resume(answer)
        self._came(accepted.execution_id)
        return accepted

    async def expire(self, root_id: str, execution_id: str, seq: int) -> bool:
        """Let the time of a suspension be over, unless it has its answer; False: it is not due."""
        return await self._store.expire(root_id, execution_id, seq, self._clock.now())

    async def listing(self, filters: dict[str, str], limit: int) -> list[Suspension]:
        """List open suspensions, the oldest first."""
        return await self._store.suspensions(filters, limit, self._clock.now())
