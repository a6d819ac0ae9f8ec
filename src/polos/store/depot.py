"""The part of a store that keeps blobs, and gives out and takes whole trees as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from polos.core.upkeep import BlobSize
from polos.store.trees import Rewrite


class Depot(Protocol):
    """Blobs by the digest of what they hold, and rows as they lie there."""

    # -- blobs --------------------------------------------------------------------------------

    async def blob_begin(self, hash: str, size: int, now: int) -> bool:
        """Say that chunks of a blob are coming; False if it is here already, and kept anew."""
        ...

    async def blob_put(self, hash: str, number: int, chunk: bytes) -> None:
        """Store one chunk, as the lining made it."""
        ...

    async def blob_finish(self, hash: str, size: int, chunks: int, now: int) -> None:
        """Say that a blob is complete; it stays for a while without anybody who refers to it."""
        ...

    async def blob_size(self, hash: str) -> BlobSize | None:
        """Return how large a blob is; None if it is not here."""
        ...

    async def blob_chunk(self, hash: str, number: int) -> bytes | None:
        """Read a chunk as it is stored; None behind the last."""
        ...

    async def blob_collect(self, before: int, limit: int) -> int:
        """Remove blobs that nobody refers to and that were written before a moment."""
        ...

    # -- whole trees, as they are stored -------------------------------------------------------

    async def dump_tree(self, root_id: str) -> dict[str, list[dict[str, Any]]]:
        """Read all rows of a tree, by table, as of one moment."""
        ...

    async def restore_tree(
        self, tables: Mapping[str, Sequence[Mapping[str, Any]]], blobs: Sequence[str]
    ) -> list[str]:
        """Write the rows of a tree, if all `blobs` are here; returns ids that are taken.

        If any is taken nothing is written.
        """
        ...

    async def sealed_page(
        self, table: str, after: Sequence[Any] | None, limit: int
    ) -> list[tuple[Any, ...]]:
        """Read keys and values of `lining.SEALED_COLUMNS` (or of `blob_chunk`), by key."""
        ...

    async def rewrite(self, table: str, rows: Sequence[Rewrite]) -> int:
        """Put values in the place of others, where these still are there; returns how many."""
        ...
