"""Blobs: chunks under the digest of the whole, who refers to them, and what nobody refers to.

Who refers to a blob holds its row `FOR KEY SHARE`, who removes it `FOR UPDATE`: so none goes that
somebody is about to refer to. Rows are locked in the order of their hashes.
"""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.content import Content
from polos.core.upkeep import BlobSize
from polos.store.commands import Apart
from polos.store.postgres.links import Link

HOLD = (
    "SELECT hash FROM {s}.blob WHERE hash = ANY($1::text[]) AND chunks IS NOT NULL "
    "ORDER BY hash FOR KEY SHARE"
)
BLOB = (
    "INSERT INTO {s}.blob (hash, size, chunks, at) "
    "VALUES ($1, $2, $3::bigint, $4) "
    "ON CONFLICT (hash) DO UPDATE SET at = greatest(blob.at, excluded.at), "
    "chunks = coalesce(blob.chunks, excluded.chunks)"
)
CHUNK = (
    "INSERT INTO {s}.blob_chunk (hash, number, body) VALUES ($1, $2, $3::bytea) "
    "ON CONFLICT (hash, number) DO NOTHING"
)
REFS = (
    "INSERT INTO {s}.blob_ref (root_id, execution_id, hash) "
    "SELECT k.root_id, k.id, k.hash FROM unnest($1::text[], $2::text[], $3::text[]) "
    "k (root_id, id, hash) JOIN {s}.blob b ON b.hash = k.hash "
    "ORDER BY k.root_id, k.id, k.hash ON CONFLICT (root_id, execution_id, hash) DO NOTHING"
)
# A delta may hold only a part of a reference: a fork refers to all that the other one does.
REFS_OF = (
    "INSERT INTO {s}.blob_ref (root_id, execution_id, hash) SELECT $1, $2, r.hash "
    "FROM {s}.execution e JOIN {s}.blob_ref r ON r.root_id = e.root_id AND r.execution_id = e.id "
    "WHERE e.id = $3 ORDER BY r.hash ON CONFLICT (root_id, execution_id, hash) DO NOTHING"
)
_SIZE = "SELECT size, chunks FROM {s}.blob WHERE hash = $1 AND chunks IS NOT NULL"
_READ = (
    "SELECT c.body FROM {s}.blob b JOIN {s}.blob_chunk c ON c.hash = b.hash AND c.number = $2 "
    "WHERE b.hash = $1 AND b.chunks > $2"
)
_IS_UNUSED = "NOT EXISTS (SELECT 1 FROM {s}.blob_ref r WHERE r.hash = b.hash)"
_LOCK_UNUSED = (
    f"SELECT hash FROM {{s}}.blob b WHERE at < $1 AND {_IS_UNUSED} "
    "ORDER BY hash LIMIT $2 FOR UPDATE SKIP LOCKED"
)
# A second look, once they are locked: who referred to one in between has committed.
_REMOVE = (
    f"WITH gone AS (DELETE FROM {{s}}.blob b WHERE hash = ANY($1::text[]) AND {_IS_UNUSED} "
    "RETURNING hash), chunks AS (DELETE FROM {s}.blob_chunk c USING gone "
    "WHERE c.hash = gone.hash) SELECT count(*) FROM gone"
)


async def write(link: Link, found: Sequence[Apart]) -> None:
    """Store the contents that are new, and who refers to what."""
    if not found:
        return
    hashes = sorted({hash for each in found for hash in each.refs})
    here = {hash for (hash,) in await link.fetch(HOLD, hashes)}
    contents = {content.hash: content for each in found for content in each.contents}
    at = max(each.at for each in found)
    for hash in sorted(contents.keys() - here):
        await _write_whole(link, contents[hash], at)
    keys = {(each.root_id, each.execution_id, hash) for each in found for hash in each.refs}
    await link.fetch(REFS, *[list(column) for column in zip(*sorted(keys), strict=True)])


async def _write_whole(link: Link, content: Content, at: int) -> None:
    # The row first: two who bring the same chunks wait for each other there.
    await link.fetch(BLOB, content.hash, content.size, None, at)
    count = 0
    for chunk in content.chunks():
        await link.fetch(CHUNK, content.hash, count, chunk)
        count += 1
    await link.fetch(BLOB, content.hash, content.size, count, at)


async def begin(link: Link, hash: str, size: int, at: int) -> bool:
    """Say that chunks of a blob are coming; False if it is here already, and now kept anew."""
    here = await read_size(link, hash)
    await link.fetch(BLOB, hash, size, None, at)
    return here is None


async def put_chunk(link: Link, hash: str, number: int, chunk: bytes) -> None:
    """Store one chunk."""
    await link.fetch(CHUNK, hash, number, chunk)


async def finish(link: Link, hash: str, size: int, chunks: int, at: int) -> None:
    """Say that a blob is complete."""
    await link.fetch(BLOB, hash, size, chunks, at)


async def read_size(link: Link, hash: str) -> BlobSize | None:
    """Return how large a blob is; None if it is not here, or not complete."""
    found = await link.fetch(_SIZE, hash)
    return BlobSize(*found[0]) if found else None


async def read_chunk(link: Link, hash: str, number: int) -> bytes | None:
    """Read one chunk of a complete blob."""
    found = await link.fetch(_READ, hash, number)
    return bytes(found[0][0]) if found else None


async def collect(link: Link, before: int, limit: int) -> int:
    """Remove blobs that nobody refers to and that were last written before a moment."""
    unused = sorted(hash for (hash,) in await link.fetch(_LOCK_UNUSED, before, limit))
    return (await link.row(_REMOVE, unused))[0] if unused else 0
