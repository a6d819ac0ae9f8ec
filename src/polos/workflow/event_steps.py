"""The part of `ctx.step` that publishes events and waits for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from polos.core import events as rules
from polos.core.content import Dumped
from polos.core.retry import LONGEST_SECONDS
from polos.errors import UsageError
from polos.workflow.event import EventPayload, dump_data
from polos.workflow.signature import is_async

if TYPE_CHECKING:
    from polos.workflow.port import AttemptPort

Data = BaseModel | dict[str, Any]


class EventSteps:
    """Publishing and waiting; see `polos.workflow.steps.Steps`."""

    @property
    def _attempt(self) -> AttemptPort:
        raise NotImplementedError

    async def publish_event(
        self, step_key: str, topic: str, data: Data, event_type: str | None = None
    ) -> None:
        """Publish an event on a topic, exactly once: it becomes visible with the step's record.

        `data` is a dict or model of JSON. What waits for the topic is woken in the same commit.
        """
        rules.check_topic(topic)
        checked = rules.check_type(event_type)
        await self._attempt.events.publish(step_key, topic, checked, _dump(step_key, data))

    async def publish_workflow_event(
        self, step_key: str, data: Data, event_type: str | None = None
    ) -> None:
        """Publish an event on the topic of this tree of executions, exactly once.

        That is `workflow/{root_workflow_id}/{root_execution_id}`, which `events.stream_workflow`
        reads.
        """
        checked = rules.check_type(event_type)
        await self._attempt.events.publish(step_key, None, checked, _dump(step_key, data))

    async def wait_for_event(
        self,
        step_key: str,
        topic: str,
        timeout: float | None = None,
        filter: Mapping[str, Any] | Callable[[EventPayload], object] | None = None,
    ) -> EventPayload:
        """Wait for the first event of a topic that is published after this wait is recorded.

        It survives restarts and costs nothing meanwhile. `timeout` (seconds) raises
        `WaitTimeoutError`. `filter` lets other events pass: a dict of paths into the data and
        values, `{"order.id": 7, "total": (">", 100)}` (operators `==`, `!=`, `>`, `>=`, `<`, `<=`,
        `in`; also `event_type`), or a function of the `EventPayload`, which must answer the same on
        every run. A dict costs less: an event that does not fit wakes nobody.
        """
        rules.check_topic(topic)
        if timeout is not None:
            _check_timeout(step_key, timeout)
        filter_: str | None = None
        if callable(filter):
            if is_async(filter):
                raise UsageError(
                    f"step {step_key!r}: filter is a coroutine function; pass a plain function, "
                    "or a dict of paths and values"
                )
            filter_ = rules.EACH
        elif filter is not None:
            filter_ = rules.dump_filter(filter)
        predicate = filter if callable(filter) else None
        return await self._attempt.events.wait_for(step_key, topic, timeout, filter_, predicate)


def _dump(step_key: str, data: Any) -> Dumped:
    return dump_data(data, f"data of step {step_key!r}")


def _check_timeout(step_key: str, timeout: Any) -> None:
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < math.inf or timeout > LONGEST_SECONDS:
        raise UsageError(
            f"step {step_key!r}: timeout is a number of seconds above 0 and at most 100 years, not "
            f"{timeout!r}"
        )
