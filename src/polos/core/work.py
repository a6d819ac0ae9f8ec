"""What a change does beside writing rows: work in its own transaction, and the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from polos.core.content import Content


@dataclass(slots=True)
class Renewal:
    """A run of an execution is over, and the next one begins: with an empty journal, in place."""

    payload: str | None
    payload_type: str | None
    at: int
    topic: str
    """Of its tree: it gets what the journal tells before that is cut."""
    state: str | None = None
    """A snapshot: what the next run begins with."""
    state_version: int = 0
    contents: Sequence[Content] = ()
    """Blobs in `payload` that may not be stored yet."""
    schema_version: int | None = None
    """Of the state: see `StateEntry`."""


class Task(Protocol):
    """What a change does inside its own transaction, behind the fence, before it is formed.

    The store calls the function (`call` on the thread that owns the connection, or `call_async`),
    then, on the event loop, `prepare` with its value and `accept`; or `reject` if one of them
    raised: what the function wrote is undone then. Only after that the change has its rows.
    """

    is_formed: bool

    def call(self, connection: Any) -> Any:
        """Call the function, and return its value."""
        ...

    async def call_async(self, connection: Any) -> Any:
        """Call the function on the event loop, and return its value."""
        ...

    def prepare(self, value: Any) -> None:
        """Make the record of a value; raises if it has none."""
        ...

    def accept(self) -> None:
        """Form the change with the record that was prepared."""
        ...

    def reject(self, error: BaseException) -> None:
        """Form the change with the record of a failure."""
        ...
