"""Large content by reference: what records keep is its digest, its size and what it is."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from pathlib import PurePath
from typing import Any, Protocol, cast

from pydantic import GetCoreSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from polos.core.content import Content
from polos.core.sealed import BLOB
from polos.errors import UsageError

CHUNK_BYTES = 1_048_576
_NOT_STORED = (
    "a Blob that is not stored yet cannot be recorded here; return it from a step, or make it with "
    "await client.store_blob(blob)"
)


class Taken(dict[str, Any]):
    """The context in which pydantic writes what is kept: takes the contents of blobs out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.contents: list[Content] = []

    def write(self, value: Any) -> dict[str, Any]:
        """Return what is kept of a blob, for `fallback` of `to_json`; nothing else is known."""
        if not isinstance(value, Blob):
            raise ValueError(f"unable to serialize {type(value).__name__}")
        if value.content is not None:
            self.contents.append(value.content)
        return {BLOB: value.record()}


class BlobReader(Protocol):
    """Where the content of blobs is."""

    def read_blob(self, hash: str) -> AsyncIterator[bytes]:
        """Yield a blob chunk by chunk; `BlobNotFoundError` if it is not there."""
        ...


current_reader: ContextVar[BlobReader | None] = ContextVar("polos_blob_reader", default=None)
"""Where blobs that are decoded here are read from."""


class Blob:
    """Content of any size: a payload, result or step output keeps a reference to it.

    ```python
    async def render(order: Order) -> Blob:
        return Blob.from_bytes(pdf, media_type="application/pdf")
    ```
    The content is stored once, under its SHA-256, however many values refer to it; as long as an
    execution does, it stays. `from_path` reads a file when it is stored, piece by piece.
    """

    __slots__ = ("_content", "_reader", "hash", "media_type", "name", "size")

    def __init__(
        self,
        hash: str,
        size: int,
        media_type: str | None = None,
        name: str | None = None,
        *,
        content: Content | None = None,
    ) -> None:
        self.hash = hash
        """SHA-256 of the content, as hexadecimal text."""
        self.size = size
        """In bytes."""
        self.media_type = media_type
        self.name = name
        self._content = content
        self._reader = current_reader.get()

    # -- making -------------------------------------------------------------------------------

    @classmethod
    def from_bytes(
        cls, data: bytes | bytearray, *, media_type: str | None = None, name: str | None = None
    ) -> Blob:
        """Return a blob of bytes in memory."""
        if not isinstance(cast("Any", data), bytes | bytearray | memoryview):
            raise UsageError(
                f"Blob.from_bytes takes bytes, not {type(data).__name__}; encode text with "
                "text.encode(), and name a file with Blob.from_path"
            )
        data = bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        content = Content(digest, len(data), partial(_pieces, data))
        return cls(digest, len(data), media_type, name, content=content)

    @classmethod
    def from_path(
        cls, path: str | PurePath, *, media_type: str | None = None, name: str | None = None
    ) -> Blob:
        """Return a blob of a file, which stays as it is until the blob is stored.

        The file is read once now, for its digest, and once when the blob is stored; never whole.
        From a huge one make it in a plain `def` step: those run in threads.
        """
        digest, size = hashlib.sha256(), 0
        for piece in _file(str(path), None):
            digest.update(piece)
            size += len(piece)
        hash = digest.hexdigest()
        content = Content(hash, size, partial(_file, str(path), hash), in_memory=False)
        return cls(hash, size, media_type, name or PurePath(path).name, content=content)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Blob:
        """Return the blob that a value refers to."""
        return cls(record["hash"], record["size"], record.get("media_type"), record.get("name"))

    @staticmethod
    def is_record(found: Any) -> bool:
        """Say whether plain data is what a value keeps of a blob."""
        if not isinstance(found, dict):
            return False
        record = cast("dict[str, Any]", found)
        return isinstance(record.get("hash"), str) and isinstance(record.get("size"), int)

    # -- reading ------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """Return the whole content; `BlobNotFoundError` if the store has it no more."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the content in pieces of a megabyte at most, to go through it in little memory."""
        if self._content is not None:
            for piece in self._content.chunks():
                yield piece
            return
        reader = self._reader or current_reader.get()
        if reader is None:
            raise UsageError(
                f"blob {self.hash[:16]}… was read outside of a client; get it with "
                "await client.get_blob(blob), or from the result of an execution"
            )
        async for piece in reader.read_blob(self.hash):
            yield piece

    async def save(self, path: str | PurePath) -> None:
        """Write the content to a file."""
        with open(path, "wb") as file:  # noqa: ASYNC230 - a piece at a time
            async for piece in self.chunks():
                file.write(piece)

    # -- as a value ---------------------------------------------------------------------------

    @property
    def content(self) -> Content | None:
        """What is to be stored; None if it came out of a store."""
        return self._content

    def record(self) -> dict[str, Any]:
        """Return what a value keeps of it."""
        found: dict[str, Any] = {"hash": self.hash, "size": self.size}
        if self.media_type is not None:
            found["media_type"] = self.media_type
        if self.name is not None:
            found["name"] = self.name
        return found

    def stored_record(self) -> dict[str, Any]:
        """Return the same; ValueError for a blob that is not stored yet."""
        if self._content is not None:
            raise ValueError(_NOT_STORED)
        return self.record()

    def __repr__(self) -> str:
        return f"Blob({self.hash[:12]}…, {self.size:,} bytes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blob) and self.record() == other.record()

    def __hash__(self) -> int:
        return hash(self.hash)

    def __deepcopy__(self, memo: Any) -> Blob:
        return self  # nothing in it changes

    __copy__ = __deepcopy__

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _of_value,
            serialization=core_schema.plain_serializer_function_ser_schema(
                serialize_blob, info_arg=True
            ),
        )


def _of_value(value: Any) -> Blob:
    if isinstance(value, Blob):
        return value
    inner: Any = cast("dict[str, Any]", value).get(BLOB) if isinstance(value, dict) else None
    if Blob.is_record(inner):
        return Blob.from_record(inner)
    raise PydanticCustomError("blob", "Input should be a Blob, or what a record keeps of one")


def serialize_blob(value: Any, info: Any) -> Any:
    """Write a blob for pydantic; for a record only one that is stored."""
    if info.mode == "python" or not isinstance(value, Blob):
        return value
    if isinstance(info.context, Taken):
        return info.context.write(value)
    return {BLOB: value.stored_record() if info.round_trip else value.record()}


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES))


def _file(path: str, hash: str | None) -> Iterator[bytes]:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
            yield piece
    if hash is not None and digest.hexdigest() != hash:
        raise UsageError(f"{path} was changed while a Blob of it was to be stored; make it anew")
