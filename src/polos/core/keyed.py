"""The nouns of keyed state: how an execution takes part in it, and the state of a key."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Keyed:
    """How a new execution takes part in the state of a key of its workflow."""

    key: str
    rollback: bool = False
    """If it fails, the state stays what it was before; else it is what was recorded last."""
    given: bool = False
    """It comes with an initial state, which only a key without any takes."""


@dataclass(slots=True)
class KeyedState:
    """The state of a key, as people set it or an execution left it."""

    workflow_id: str
    key: str
    version: int
    """1, 2, …: how often it was changed."""
    state: str
    """JSON text."""
    schema_version: int | None
    updated_at: int | None
    execution_id: str | None
    """The execution that had the key last; None: people set it since."""
