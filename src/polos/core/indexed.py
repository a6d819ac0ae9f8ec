"""What an execution is found by: one value at one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class IndexEntry:
    """What an execution is found by: the value at a path, as `core.where` encodes it."""

    workflow_id: str
    path: str
    """`state.` and a field that the workflow declared, or `tags.` and the name of a tag."""
    value: str | None
    """None: there is nothing at the path any more."""
    number: float | None = None
