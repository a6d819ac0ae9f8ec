"""The nouns of triggers: topics whose events start executions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polos.core.model import Event, Start


@dataclass(slots=True, frozen=True)
class Trigger:
    """A topic whose events start executions of a workflow."""

    workflow_id: str
    topic: str
    batch_size: int = 1
    batch_timeout_seconds: float | None = None


@dataclass(slots=True)
class Triggered:
    """Events that a trigger has not started anything for yet."""

    last: int
    """The `seq` of the last event that it did start something for."""
    events: list[Event]


@dataclass(slots=True, frozen=True)
class Firing:
    """Executions to start for events of a trigger, exactly once."""

    workflow_id: str
    topic: str
    last: int
    """Where the trigger stands; if it has moved on, nothing is started."""
    to: int
    starts: Sequence[Start]
