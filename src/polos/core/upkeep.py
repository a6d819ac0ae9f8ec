"""What operators are told of a store: what it holds, and what a removal took away."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pruned:
    """What a removal of old trees of executions took away, or would."""

    trees: int = 0
    executions: int = 0
    rows: int = 0
    """Rows of all tables, those of the executions included."""
    left: list[str] = field(default_factory=list[str])
    """Roots that were named and not reached: for a further call."""


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


@dataclass(slots=True)
class BlobSize:
    """A blob that the store holds."""

    size: int
    chunks: int
