"""What executions streamed out and told, against what they had to: nothing is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.chaos.plan import LEAF_STEPS, WORDS

Event = dict[str, Any]
"""`seq`, `type` and `data` of an event of a topic."""


def around(kind: str, steps: int) -> list[Any]:
    """Return the chunks that the code around the steps has to stream."""
    if kind == "speaker":
        return [["around", n] for n in range(steps)]
    return [[run, what] for run in range(steps) for what in ("begin", "end")]


def streams(
    name: str, kind: str, steps: int, events: Sequence[Event], durable: Iterable[Any]
) -> list[str]:
    """Compare the stream of an execution with what it has to be.

    `durable` are chunks, each (step key, data), of which `durable()` had said that they are.
    """
    found = _gaps(name, events)
    kept: dict[str | None, list[Any]] = {}
    seen: list[tuple[str | None, Any]] = []
    ended: set[str] = set()
    for event in events:
        key, data = event["data"]["step_key"], event["data"].get("data")
        if event["type"] == "end":
            ended.add(key)
            continue
        if key in ended:
            found.append(f"{name}: {event['type']} of step {key} behind its end: {data}")
        if event["type"] == "reset":
            if not kept.get(key):
                found.append(f"{name}: a reset of step {key}, which had streamed nothing")
            kept[key] = []
        else:
            kept.setdefault(key, []).append(data)
            seen.append((key, data))
    if kept.pop(None, []) != around(kind, steps):
        found.append(f"{name}: around its steps it streamed {[d for k, d in seen if k is None]}")
    wanted = [f"s{n}" for n in range(steps)] if kind == "speaker" else []
    if sorted(kept, key=str) != wanted or ended != set(wanted):
        found.append(f"{name}: steps {list(kept)} streamed, {sorted(ended)} to their end")
    for key, chunks in kept.items():
        bodies = {chunk[0] for chunk in chunks}
        if len(bodies) != 1 or [chunk[1] for chunk in chunks] != list(range(WORDS)):
            found.append(f"{name}: step {key} streamed {chunks}")
    lost = [each for each in durable if each not in seen]
    return found + [f"{name}: durable, and not there: {each}" for each in lost]


def runs(name: str, id_: str, steps: int, events: Sequence[Event]) -> list[str]:
    """Compare what an execution with so many runs told with what it did."""
    found = _gaps(name, events)
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    order: list[str] = []
    for event in events:
        data = event["data"]
        meta = data.get("_metadata")
        if event["type"] == "said":
            order.append(f"said {data['run']}")
        elif meta["execution_id"] != id_:
            counts["leaf", event["type"]] += 1
        else:
            key = data.get("step_key", "")
            counts[key, event["type"]] += 1
            if event["type"] == "step_finish" and key.startswith("g"):
                order.append(key)
    wanted = [each for run in range(steps) for each in (f"g{run}", f"said {run}")]
    if order != wanted:
        found.append(f"{name}: it told {order}, not {wanted}")
    if counts != (known := _counts(steps)):
        found.append(f"{name}: it told {dict(counts)}, not {known}")
    return found


def _counts(steps: int) -> Mapping[tuple[str, str], int]:
    """Return how many events of each kind an execution with so many runs tells."""
    children = steps // 2
    known = {("", "workflow_start"): 1, ("", "workflow_finish"): 1}
    for what in ("step_start", "step_finish"):
        known |= {(f"g{run}", what): 1 for run in range(steps)}
        known |= {("nap", what): (steps + 1) // 3, ("child", what): children}
        known["leaf", what] = children * LEAF_STEPS
    for what in ("workflow_start", "workflow_finish"):
        known["leaf", what] = children
    return {each: count for each, count in known.items() if count}


def _gaps(name: str, events: Sequence[Event]) -> list[str]:
    numbers = [event["seq"] for event in events]
    return [] if numbers == list(range(1, len(numbers) + 1)) else [f"{name}: numbers {numbers}"]
