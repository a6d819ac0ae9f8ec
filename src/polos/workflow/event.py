"""Events as workflow code gets them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import PydanticSerializationError, to_json

from polos.core import ids
from polos.core.blob import Taken
from polos.core.content import Dumped
from polos.core.readable import demand_readable
from polos.errors import EncodeError


class EventPayload(BaseModel):
    """An event of a topic: what `wait_for_event` returns, and what a triggered workflow gets.

    `sequence_id` counts the events of its topic from 1 without gaps, `created_at` is when it was
    published. `data` are a dict, but for suspensions and answers of another shape.
    """

    id: str
    sequence_id: int
    topic: str
    event_type: str | None = None
    data: Any = Field(default_factory=dict)
    created_at: datetime


class EventItem(EventPayload):
    """One event of a `BatchEventPayload`."""


class BatchEventPayload(BaseModel):
    """Several events of a topic, in order: what a workflow with a `batch_size` gets."""

    events: list[EventItem] = Field(default_factory=list[EventItem])


def dump_data(data: Any, what: str) -> Dumped:
    """Return the data of an event as JSON text; EncodeError if they are no JSON object."""
    taken = Taken()
    if not isinstance(data, dict | BaseModel):
        raise EncodeError(f"{what}: expected a dict, not {type(data).__name__}")
    try:
        text = to_json(data, inf_nan_mode="constants", context=taken, fallback=taken.write).decode()
        demand_readable(text)
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise EncodeError(f"{what} cannot be recorded as JSON: {error}") from error
    if not ids.is_storable(text):
        raise EncodeError(f"{what}: it holds a lone surrogate, which no database takes")
    return Dumped(text, taken.contents)
