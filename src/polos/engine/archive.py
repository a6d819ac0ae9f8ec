"""The file of an exported tree: a zip of JSON lines and blob chunks, under a manifest of digests.

Nothing of it is extracted to a disk, and nothing is believed: names, sizes and digests are those of
the manifest, or the file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from polos.errors import ImportFileError
from polos.store.trees import TABLES

FORMAT = "polos-export"
VERSION = 1
TABLE_MAX = 1_073_741_824
"""Bytes that one table of a file may have: a file that claims more is taken for a bomb."""
CHUNK_MAX = 4_194_304
MEMBERS_MAX = 1_000_000
_NAMES = re.compile(rf"(?:{'|'.join(TABLES)})\.jsonl|blobs/[0-9a-f]{{64}}/[0-9]{{1,9}}")
_MANIFEST = "manifest.json"
# What zipfile raises over bytes that are no zip, or no longer.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error, OSError),
    *(ValueError, RuntimeError, NotImplementedError, OverflowError),
)
_MANIFEST_MAX = 268_435_456


class Writer:
    """Writes a file beside its place, and puts it there once it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._members: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Self:
        # For its owner only: it holds what the executions worked with.
        opened = os.open(self._part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        self._file = os.fdopen(opened, "wb")
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_DEFLATED)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

    def add(self, name: str, data: bytes) -> None:
        """Add a member."""
        self._members[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        self._zip.writestr(name, data)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Add the manifest: what is in the file, and `facts` about it."""
        manifest = {"format": FORMAT, "version": VERSION, **facts, "members": self._members}
        self._zip.writestr(_MANIFEST, json.dumps(manifest, indent=1))


class Reader:
    """Reads a file that was checked against its manifest: `with Reader(path) as file`."""

    def __init__(self, path: Path) -> None:
        self.path = self._path = path
        self.manifest: dict[str, Any] = {}
        self._members: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self._zip = zipfile.ZipFile(self._path)
        except _DAMAGED as error:
            reason = getattr(error, "strerror", None) or "it is not a zip file"
            raise self._refused(f"it cannot be read ({reason})") from error
        try:
            self._check()
        except BaseException:
            self._zip.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def _refused(self, why: str) -> ImportFileError:
        return ImportFileError(
            f"{self._path}: {why}; expected the unchanged output of `polos export`, nothing of it "
            "was stored"
        )

    def _check(self) -> None:
        infos = self._zip.infolist()
        names = [info.filename for info in infos]
        if _MANIFEST not in names:
            raise self._refused("it has no manifest")
        self._read_manifest()
        if len(names) != len(set(names)) or len(names) > MEMBERS_MAX:
            raise self._refused("it has members of the same name, or too many")
        if set(names) != {*self._members, _MANIFEST}:
            raise self._refused("what is in it is not what its manifest names")
        for info in infos:
            if info.filename == _MANIFEST:
                continue
            if not _NAMES.fullmatch(info.filename):
                raise self._refused(f"it has a member {info.filename!r}")
            most = CHUNK_MAX if info.filename.startswith("blobs/") else TABLE_MAX
            stated = self._members[info.filename]
            if not isinstance(stated, dict) or self._stated(info.filename) != info.file_size:
                raise self._refused(f"the size of {info.filename} is not that of its manifest")
            if info.file_size > most:
                raise self._refused(f"{info.filename} has {info.file_size:,} bytes, too many")
            with self._opened(info.filename) as member:
                self._digest(info.filename, member, info.file_size)

    def _stated(self, name: str) -> Any:
        return self._members[name].get("bytes")

    def _read_manifest(self) -> None:
        with self._opened(_MANIFEST) as member:
            text = self._bounded(member, _MANIFEST_MAX)
        try:
            manifest: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._refused("its manifest is not JSON") from error
        if not isinstance(manifest, dict):
            raise self._refused("its manifest is not an object")
        found = self.manifest = cast("dict[str, Any]", manifest)
        if found.get("format") != FORMAT:
            raise self._refused(f"its format is {found.get('format')!r}")
        if found.get("version") != VERSION:
            raise self._refused(
                f"its format has version {found.get('version')!r}, this release knows {VERSION}: "
                "upgrade the polos package"
            )
        members: Any = found.get("members")
        if not isinstance(members, dict) or "execution.jsonl" not in members:
            raise self._refused("its manifest names no executions")
        self._members = cast("dict[str, Any]", members)

    def _opened(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(name)
        except _DAMAGED as error:
            raise self._refused(f"{name} cannot be read") from error

    def _bounded(self, member: IO[bytes], most: int) -> bytes:
        try:
            data = member.read(most + 1)
        except _DAMAGED as error:
            raise self._refused("it is damaged") from error
        if len(data) > most:
            raise self._refused("a member is larger than it says")
        return data

    def _digest(self, name: str, member: IO[bytes], size: int) -> None:
        digest, left = hashlib.sha256(), size
        while piece := self._bounded(member, min(left, CHUNK_MAX)):
            digest.update(piece)
            left -= len(piece)
        if left or digest.hexdigest() != self._members[name].get("sha256"):
            raise self._refused(f"{name} was changed since it was exported")

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table."""
        name = f"{table}.jsonl"
        if name not in self._members:
            return []
        with self._opened(name) as member:
            lines = self._bounded(member, self._members[name]["bytes"]).splitlines()
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                row: Any = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._refused(f"{name} is not JSON lines") from error
            if not isinstance(row, dict):
                raise self._refused(f"{name} has a line that is no row")
            found.append(cast("dict[str, Any]", row))
        return found

    def blobs(self) -> dict[str, int]:
        """Return the blobs in the file, with the number of their chunks."""
        found: dict[str, int] = {}
        for name in self._members:
            if name.startswith("blobs/"):
                hash = name.split("/")[1]
                found[hash] = found.get(hash, 0) + 1
        return found

    def chunks(self, hash: str) -> Iterator[bytes]:
        """Yield the stored chunks of a blob."""
        for number in range(self.blobs()[hash]):
            name = f"blobs/{hash}/{number}"
            if name not in self._members:
                raise self._refused(f"blob {hash[:16]}… lacks chunk {number}")
            with self._opened(name) as member:
                yield self._bounded(member, CHUNK_MAX)
