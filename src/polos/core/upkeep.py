"""The nouns of upkeep: what a store holds, what a removal took away, who runs what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(slots=True, frozen=True)
class Need:
    """What an execution needs of a worker (see `core.versions`)."""

    workflow_id: str
    deployment_id: str | None
    code_version: str | None


@dataclass(slots=True, frozen=True)
class Offer:
    """What a worker runs, as it tells the others (see `core.versions`)."""

    workflows: Sequence[str]
    takes_queue: bool = False
    deployment_id: str | None = None
    versions: Mapping[str, str] | None = None
