"""Going back: starts that go on from a journal, retries, and resets in place."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from polos.core import ids
from polos.core.clock import Clock
from polos.core.model import Execution, Row, Start, StateEntry
from polos.core.rewind import Rewound
from polos.errors import ExecutionNotFoundError
from polos.store.protocol import Store

Tell = Callable[[Mapping[str, str]], Coroutine[Any, Any, None]]


class Rewinding:
    """The verbs that go back; `tell` is called with what became of children, `ring` at the end."""

    def __init__(self, store: Store, clock: Clock, tell: Tell, ring: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._tell = tell
        self._ring = ring

    async def start_with(
        self, start: Start, journal: Sequence[Row], states: Sequence[StateEntry]
    ) -> None:
        """Create an execution that goes on from a journal; whoever may run it claims it."""
        await self._store.start_with(start, journal, states)
        self._ring()

    async def retry(self, execution_id: str) -> None:
        """Let a failed execution go on from its failed step, or release a blocked one."""
        check_id(execution_id)
        await self._bring_topic_up_to_date(execution_id)
        await self._store.retry(execution_id, self._clock.now())
        self._ring()

    async def reset(self, execution_id: str, step_key: str, *, dry_run: bool) -> Rewound:
        """Let an execution go on behind one of its steps."""
        check_id(execution_id)
        if not dry_run:
            await self._bring_topic_up_to_date(execution_id)
        now = self._clock.now()
        done = await self._store.reset(execution_id, step_key, now, dry_run=dry_run)
        if not dry_run:
            await self._tell(done.children)
            self._ring()
        return done

    async def _bring_topic_up_to_date(self, execution_id: str) -> None:
        # What is cut off has happened all the same: who reads what the tree tells gets it. Nobody
        # runs what can be cut, so that nothing comes to its journal between this and the cut.
        record = await self._store.execution(execution_id)
        if record is not None:
            await self._store.derive(record.root_id)

    async def cut_steps(self, execution: Execution) -> list[tuple[int, int, Row]]:
        """Read the rows that resets cut off: (number of the reset, its moment, row)."""
        return await self._store.cut_steps(execution.root_id, execution.id)


def check_id(execution_id: Any) -> None:
    """Raise ExecutionNotFoundError for what cannot be an id."""
    if not isinstance(execution_id, str) or not ids.is_storable(execution_id):
        raise ExecutionNotFoundError(execution_id)
