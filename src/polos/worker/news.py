"""What comes from outside for attempts that run here: inbox items and cancellations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polos.core.model import Execution, Status

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt
    from polos.worker.runner import Runner


class News:
    """Fetches and hands over what other executions and processes wrote for ours."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._fetching: set[str] = set()
        self._cancelled: set[str] = set()
        """Asked to cancel while their claim was on its way, perhaps."""

    def ring(self, execution_id: str) -> None:
        """Something came into an execution's inbox."""
        runner = self._runner
        attempt = runner.attempt_of(execution_id)
        if attempt is None:
            return
        if attempt.parked:
            runner.wake(attempt)
        elif not attempt.parking:
            if not self._fetching:
                runner.loop.call_soon(lambda: runner.spawn(self._fetch_rung()))
            self._fetching.add(execution_id)

    async def _fetch_rung(self) -> None:
        rung, self._fetching = self._fetching, set()
        found = [self._runner.attempt_of(each) for each in rung]
        await self._fetch([each for each in found if each is not None])

    async def _fetch(self, attempts: Sequence[Attempt]) -> None:
        backend = self._runner.backend
        items = await backend.inboxes([(a.execution.root_id, a.execution_id) for a in attempts])
        if any(item.status is Status.CANCELLED for item in items):
            # Whoever cancelled a child may have cancelled its parent: then that comes first.
            self._cancel(await backend.to_cancel())
        for attempt in attempts:
            attempt.waiting.take([i for i in items if i.execution_id == attempt.execution_id])

    async def look(self) -> None:
        """See what others wrote."""
        await self.deliver(await self._runner.backend.to_cancel())

    async def deliver(self, cancelled: Sequence[str]) -> None:
        """Cancel what was asked to cancel, and fetch what came for those who run and wait."""
        self._cancel(cancelled)
        self._cancelled.clear()  # what is claimed from now on says so itself
        attempts = self._runner.attempts()
        live = [a for a in attempts if not a.parked and a.waiting.for_inbox()]
        if live:
            await self._fetch(live)

    def _cancel(self, ids: Sequence[str]) -> None:
        for each in ids:
            attempt = self._runner.attempt_of(each)
            if attempt is not None:
                attempt.ending.cancel()

    def on_cancel(self, ids: Sequence[str]) -> None:
        """These executions were asked to cancel."""
        self._cancel(ids)
        self._cancelled.update(each for each in ids if self._runner.attempt_of(each) is None)

    def catch_up(self, execution: Execution) -> None:
        """An execution is about to run: what it was asked while its claim was on its way."""
        if execution.id in self._cancelled and execution.cancel_requested_at is None:
            execution.cancel_requested_at = self._runner.clock.now()
