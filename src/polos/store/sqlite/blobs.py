"""Blobs: chunks under the digest of the whole, who refers to them, and what nobody refers to."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import apsw

from polos.core.content import Content
from polos.core.upkeep import BlobSize
from polos.store.commands import Apart

_BLOB = (
    "INSERT INTO blob (hash, size, chunks, at) "
    "VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET at = max(blob.at, excluded.at), "
    "chunks = coalesce(blob.chunks, excluded.chunks)"
)
_CHUNK = (
    "INSERT INTO blob_chunk (hash, number, body) VALUES (?, ?, ?) "
    "ON CONFLICT (hash, number) DO NOTHING"
)
_REF = (
    "INSERT INTO blob_ref (root_id, execution_id, hash) SELECT ?1, ?2, b.hash "
    "FROM json_each(?3) j JOIN blob b ON b.hash = j.value WHERE true "
    "ON CONFLICT (root_id, execution_id, hash) DO NOTHING"
)
_UNUSED = (
    "SELECT hash FROM blob b WHERE at < ? "
    "AND NOT EXISTS (SELECT 1 FROM blob_ref r WHERE r.hash = b.hash) LIMIT ?"
)


def write(connection: apsw.Connection, found: Sequence[Apart]) -> None:
    """Store the contents that are new, and who refers to what."""
    for each in found:
        for content in each.contents:
            size = read_size(connection, content.hash)
            if size is None:
                _write_whole(connection, content, each.at)
        refer(connection, each.root_id, each.execution_id, each.refs)


def refer(
    connection: apsw.Connection, root_id: str, execution_id: str, hashes: Collection[str]
) -> None:
    """Keep blobs that are here for as long as an execution is."""
    connection.execute(_REF, (root_id, execution_id, json.dumps(list(hashes))))


def _write_whole(connection: apsw.Connection, content: Content, at: int) -> None:
    count = 0
    for chunk in content.chunks():
        connection.execute(_CHUNK, (content.hash, count, chunk))
        count += 1
    connection.execute(_BLOB, (content.hash, content.size, count, at))


def begin(connection: apsw.Connection, hash: str, size: int, at: int) -> bool:
    """Say that chunks of a blob are coming; False if it is here already, and now kept anew."""
    here = read_size(connection, hash)
    connection.execute(_BLOB, (hash, size, None, at))
    return here is None


def put_chunk(connection: apsw.Connection, hash: str, number: int, chunk: bytes) -> None:
    """Store one chunk."""
    connection.execute(_CHUNK, (hash, number, chunk))


def finish(connection: apsw.Connection, hash: str, size: int, chunks: int, at: int) -> None:
    """Say that a blob is complete."""
    connection.execute(_BLOB, (hash, size, chunks, at))


def read_size(connection: apsw.Connection, hash: str) -> BlobSize | None:
    """Return how large a blob is; None if it is not here, or not complete."""
    found: list[Any] = connection.execute(
        "SELECT size, chunks FROM blob WHERE hash = ? AND chunks IS NOT NULL", (hash,)
    ).fetchall()
    return BlobSize(*found[0]) if found else None


def read_chunk(connection: apsw.Connection, hash: str, number: int) -> bytes | None:
    """Read one chunk of a complete blob."""
    found: list[Any] = connection.execute(
        "SELECT c.body FROM blob b JOIN blob_chunk c ON c.hash = b.hash AND c.number = ?2 "
        "WHERE b.hash = ?1 AND b.chunks > ?2",
        (hash, number),
    ).fetchall()
    return bytes(found[0][0]) if found else None


def has_unused(connection: apsw.Connection, before: int) -> bool:
    """Say whether `collect` would find something."""
    return bool(connection.execute(_UNUSED, (before, 1)).fetchall())


def collect(connection: apsw.Connection, before: int, limit: int) -> int:
    """Remove blobs that nobody refers to and that were last written before a moment."""
    unused = [str(row[0]) for row in connection.execute(_UNUSED, (before, limit))]
    connection.executemany("DELETE FROM blob_chunk WHERE hash = ?", [(each,) for each in unused])
    connection.executemany("DELETE FROM blob WHERE hash = ?", [(each,) for each in unused])
    return len(unused)
