"""The body of a step as ambient context: which step is running here, and its view of state."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol


class Scope(Protocol):
    """One running attempt of a step's body."""

    @property
    def owner(self) -> Any:
        """The attempt of the execution that the body belongs to."""
        ...

    @property
    def key(self) -> str:
        """The (numbered) key of the step."""
        ...

    @property
    def attempts(self) -> int:
        """Which attempt of the step it is, from 1."""
        ...

    def state(self) -> Any:
        """Return the body's private copy of the state (JOURNAL 12)."""
        ...

    def replace(self, value: Any) -> None:
        """Set the whole private copy, validated."""
        ...


current_scope: ContextVar[Scope | None] = ContextVar("polos_current_scope", default=None)
