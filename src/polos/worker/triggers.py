"""Workflows that events start: each event of a topic starts one execution, or is in one batch.

Any number of workers may look at the same trigger: its place moves in the commit that starts the
executions, and whoever comes second starts nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from polos.core import events as rules
from polos.core.model import Event, Start
from polos.core.triggers import Firing, Trigger, Triggered
from polos.errors import PolosError, StoreError

if TYPE_CHECKING:
    from polos.worker.runner import Runner
    from polos.workflow.runnable import Workflow

log = logging.getLogger("polos.worker")

STARTS_MAX = 100
"""Executions that one commit starts for one trigger."""


class Triggers:
    """The triggers of the workflows that this worker can run."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._triggers: dict[str, Trigger] = {}
        self._due: set[str] = set()
        self._firing = False
        self._timer: Any = None
        self._timer_at = 0.0
        self._refused: dict[str, int] = {}
        """By workflow, behind which event its start was refused: said once."""

    async def register(self, workflow_ids: Iterable[str]) -> None:
        """Enter the triggers of workflows that this worker can run, and look what they missed."""
        found: dict[str, Trigger] = {}
        for workflow_id in workflow_ids:
            workflow = self._runner.registry.get(workflow_id)
            if workflow is not None and workflow.trigger_on_event is not None:
                found[workflow_id] = _trigger_of(workflow, workflow.trigger_on_event)
        new = [each for each in found.values() if self._triggers.get(each.workflow_id) != each]
        self._triggers = found
        if new:
            await self._runner.backend.register_triggers(new)
            self._look({each.workflow_id for each in new})

    def on_topics(self, is_meant: Callable[[str], bool]) -> None:
        """Events were published on topics."""
        if self._triggers:
            self._look({t.workflow_id for t in self._triggers.values() if is_meant(t.topic)})

    def look(self) -> None:
        """There may be events for any trigger."""
        self._look(set(self._triggers))

    def close(self) -> None:
        """Start nothing more."""
        self._triggers.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, workflow_ids: set[str]) -> None:
        self._due |= workflow_ids
        if self._due and not self._firing and not self._runner.closing:
            self._firing = True
            self._runner.spawn(self._fire_all())

    async def _fire_all(self) -> None:
        try:
            while self._due and not self._runner.closing:
                trigger = self._triggers.get(self._due.pop())
                if trigger is not None:
                    await self._fire(trigger)
        except StoreError as error:
            log.warning("triggers wait: %s", error)
        finally:
            self._firing = False

    async def _fire(self, trigger: Trigger) -> None:
        backend = self._runner.backend
        most = STARTS_MAX * trigger.batch_size
        while not self._runner.closing:
            pending = await backend.triggered(trigger.workflow_id, trigger.topic, most)
            if pending is None or not pending.events:
                return
            batches = self._batches(trigger, pending)
            starts = self._starts(trigger, pending, batches)
            if not starts:
                return
            to = batches[len(starts) - 1][-1].seq
            place = (trigger.workflow_id, trigger.topic, pending.last, to)
            if await backend.fire(Firing(*place, starts)):
                for start in starts:
                    self._runner.run_started(start)

    def _batches(self, trigger: Trigger, pending: Triggered) -> list[list[Event]]:
        """Return what starts now: full batches, and the rest if its first event is old enough."""
        size = trigger.batch_size
        cut = [pending.events[n : n + size] for n in range(0, len(pending.events), size)]
        if len(cut[-1]) == size:
            return cut
        seconds = trigger.batch_timeout_seconds
        if seconds is not None:
            left = cut[-1][0].at / 1e6 + seconds - self._runner.clock.now() / 1e6
            if left <= 0:
                return cut
            self._later(left)
        return cut[:-1]

    def _later(self, seconds: float) -> None:
        """Look again then; a batch of another trigger may be due before."""
        at = self._runner.clock.monotonic() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._runner.clock.call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.look()

    def _starts(
        self, trigger: Trigger, pending: Triggered, batches: Sequence[Sequence[Event]]
    ) -> list[Start]:
        runner = self._runner
        workflow = runner.registry.get(trigger.workflow_id)
        if workflow is None or not batches:
            return []
        now, starts = runner.clock.now(), list[Start]()
        try:
            for n, each in enumerate(batches):
                payload = _payload(workflow, each)
                starts.append(runner.new_start(workflow, payload, None, moment=now + n))
        except (PolosError, ValueError, TypeError) as error:
            # What came before goes on; the next look stands at the one that does not fit.
            if not starts and self._refused.get(trigger.workflow_id) != pending.last:
                self._refused[trigger.workflow_id] = pending.last
                log.error(
                    "workflow %r is not started by events of %r, which wait: %s",
                    trigger.workflow_id,
                    trigger.topic,
                    error,
                )
        for start in starts:
            start.deployment_id = runner.offering.deployment_id
        return starts


def _trigger_of(workflow: Workflow[Any], topic: str) -> Trigger:
    return Trigger(workflow.id, topic, workflow.batch_size, workflow.batch_timeout_seconds)


def _payload(workflow: Workflow[Any], batch: Sequence[Event]) -> Any:
    items = [json.loads(rules.envelope(event)) for event in batch]
    return {"events": items} if workflow.takes_event_batches else items[0]
