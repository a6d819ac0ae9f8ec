"""How much a store holds: of everything, of a table, of one blob."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class BlobSize:
    """A blob that the store holds."""

    size: int
    chunks: int


@dataclass(slots=True)
class TableSize:
    """How large a table is, its indexes included."""

    name: str
    rows: int
    bytes: int


@dataclass(slots=True)
class StoreStats:
    """What a store holds."""

    schema: int
    executions: dict[str, dict[str, int]]
    """How many there are, by workflow and status."""
    oldest: int | None
    """When the first execution that is still there was created."""
    newest: int | None
    tables: list[TableSize]
    sizes: dict[str, int]
    """Bytes by what they are; `database` at least, and `free` (inside it) where that is known."""
