"""The rules of what code streams out: chunks as events of a topic, and which of them are new there.

The topic of an execution keeps in its `cursor` how far its code has come, so that the commit that
brings chunks can tell those that an earlier attempt brought before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from polos.core.model import Event

CHUNK = "chunk"
RESET = "reset"
"""What came before of a step is void: its body starts again."""
END = "end"
"""A step is recorded: no more comes of it. Readers do not see it."""
ENDED_MAX = 64
"""Steps that are remembered behind their end: an execution that is retried may run them again."""


@dataclass(slots=True)
class StreamEvent(Event):
    """An event of the topic that an execution streams to."""

    step_key: str | None = None
    """The step whose body it comes from; None: the code around the steps."""
    number: int = 0
    """Of a chunk from around the steps: the n-th that the code has made."""
    generation: int = 0
    """How often the execution has begun anew with an empty journal."""


def text_of(step_key: str | None, data: str | None) -> str:
    """Return the data of a stream's event; `data` is JSON."""
    key = "null" if step_key is None else json.dumps(step_key)
    return f'{{"step_key":{key}}}' if data is None else f'{{"step_key":{key},"data":{data}}}'


def admit(cursor: str | None, events: Sequence[Event]) -> tuple[list[Event], str]:
    """Return those of the events that are new on their topic, and its cursor behind them.

    A chunk from around the steps is new if its number is; a reset, if the step has chunks.
    """
    place, steps = _load(cursor)
    kept: list[Event] = []
    for event in events:
        if isinstance(event, StreamEvent):
            if event.generation > place[0]:
                place, steps = (event.generation, 0), {}
            key = event.step_key
            if key is None:
                if (event.generation, event.number) <= place:
                    continue
                place = (event.generation, event.number)
            elif event.type == RESET:
                if steps.pop(key, None) is None:
                    continue
            elif event.type == END:
                if key in steps:
                    del steps[key]
                    steps[key] = True  # the latest to end comes last
            else:
                steps[key] = False
        kept.append(event)
    _forget(steps)
    return kept, json.dumps([*place, steps], separators=(",", ":"))


def _load(cursor: str | None) -> tuple[tuple[int, int], dict[str, bool]]:
    if cursor is None:
        return (0, 0), {}
    generation, number, steps = json.loads(cursor)
    return (generation, number), steps


def _forget(steps: dict[str, bool]) -> None:
    if len(steps) > ENDED_MAX:
        ended = [key for key, has_ended in steps.items() if has_ended]
        for key in ended[:-ENDED_MAX]:
            del steps[key]
