"""The verbs of a store about blobs, and about whole trees as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polos.core.upkeep import BlobSize
from polos.store.postgres import blobs, trees
from polos.store.postgres.committer import Committer
from polos.store.trees import Rewrite


class Depot(Committer):
    """Keeps blobs, and reads and writes what others keep as it lies there."""

    async def blob_begin(self, hash: str, size: int, now: int) -> bool:
        """Say that chunks of a blob are coming; False if it is here already."""
        return await self.do(lambda link, _: blobs.begin(link, hash, size, now))

    async def blob_put(self, hash: str, number: int, chunk: bytes) -> None:
        """Store one chunk."""
        await self.do(lambda link, _: blobs.put_chunk(link, hash, number, chunk))

    async def blob_finish(self, hash: str, size: int, chunks: int, now: int) -> None:
        """Say that a blob is complete."""
        await self.do(lambda link, _: blobs.finish(link, hash, size, chunks, now))

    async def blob_size(self, hash: str) -> BlobSize | None:
        """Return how large a blob is; None if it is not here."""
        return await self.read(lambda link: blobs.read_size(link, hash))

    async def blob_chunk(self, hash: str, number: int) -> bytes | None:
        """Read a chunk as it is stored; None behind the last."""
        return await self.read(lambda link: blobs.read_chunk(link, hash, number))

    async def blob_collect(self, before: int, limit: int) -> int:
        """Remove blobs that nobody refers to and that were written before a moment."""
        return await self.do(lambda link, _: blobs.collect(link, before, limit))

    async def dump_tree(self, root_id: str) -> dict[str, list[dict[str, Any]]]:
        """Read all rows of a tree, by table, as of one moment."""
        return await self.read(lambda link: trees.dump(link, root_id))

    async def restore_tree(
        self, tables: Mapping[str, Sequence[Mapping[str, Any]]], blobs: Sequence[str]
    ) -> list[str]:
        """Write the rows of a tree; returns ids that are taken, and writes nothing then."""
        return await self.do(lambda link, _: trees.restore(link, tables, blobs))

    async def sealed_page(
        self, table: str, after: Sequence[Any] | None, limit: int
    ) -> list[tuple[Any, ...]]:
        """Read keys and values that may be encrypted, in the order of the keys."""
        return await self.read(lambda link: trees.page(link, table, after, limit))

    async def rewrite(self, table: str, rows: Sequence[Rewrite]) -> int:
        """Put values in the place of others, where these still are there."""
        return await self.do(lambda link, _: trees.rewrite(link, table, rows))
