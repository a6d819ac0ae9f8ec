"""What lies between records and what a database keeps: encryption, and large values apart.

The one choke point of writing is `Lining.change` and `Lining.start`, called when a batch is formed;
that of reading is `polos.store.lined`. Whoever adds a column with a value of users adds it to both,
and to `SEALED_COLUMNS`, which `rekey` rewrites.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from polos.codecs.protocol import PayloadCodec
from polos.core import delta, failure
from polos.core.content import Content
from polos.core.model import Change, Ending, Kind, Row, Start, StateEntry, Status, Wait
from polos.core.sealed import (
    BLOB_SIGN,
    references,
    refers,
    unwrap,
    unwrap_failure,
    wrap,
    wrap_failure,
)
from polos.core.work import Renewal
from polos.errors import BlobNotFoundError, EncryptionKeyError

SPILL_BYTES = 65_536
"""Texts that are longer lie apart, stored once however often they occur."""
CHUNK_BYTES = 1_048_576
SEALED_COLUMNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "execution": (
        ("root_id", "id"),
        ("payload", "payload_type", "result", "result_type", "error", "blocked_reason"),
    ),
    "step": (("root_id", "execution_id", "seq"), ("kind", "ok", "body", "type", "change", "info")),
    "state": (("root_id", "execution_id", "version"), ("body", "jump")),
    "cut_step": (
        ("root_id", "execution_id", "cut", "seq"),
        ("kind", "ok", "body", "type", "change", "info"),
    ),
    "inbox": (("root_id", "execution_id", "id"), ("kind", "body")),
    "wait": (("root_id", "execution_id", "seq"), ("body",)),
    "event": (("topic", "seq"), ("data",)),
    "keyed_state": (("workflow_id", "state_key"), ("state",)),
    "blob_chunk": (("hash", "number"), ("body",)),
}
"""The key of each table, and its columns with values of users: what `rekey` looks at."""
_CLEAR, _ENCODED = b"\x00", b"\x01"
_EMPTY = hashlib.sha256(b"").hexdigest()
"""The only blob without a chunk."""
_PIECE = re.compile(
    r'\{ ?"\$(?P<kind>sealed|spilled)": ?"(?P<inner>[A-Za-z0-9+/=]+)"\}'
    r'|\[ ?"\$(?P<list>sealed|spilled)", ?"(?P<item>[A-Za-z0-9+/=]+)"\]'
    r'|"\{ \\"\$sealed\\":\\"(?P<message>[A-Za-z0-9+/=]+)\\"\}"'
)
"""Something stored inside of another text; the last is the message of a failure, in quotes."""
_SPILLED = re.compile(r'"\$spilled":"([0-9a-f]{64})"')


class BlobSource(Protocol):
    """Reads chunks of blobs, as they are stored."""

    async def blob_chunk(self, hash: str, number: int) -> bytes | None:
        """Read a chunk; None behind the last."""
        ...


class _Gathered:
    """The blobs of one command."""

    def __init__(self, contents: Iterable[Content]) -> None:
        self.contents = {each.hash: each for each in contents}
        self.refs = set(self.contents)


class Lining:
    """Turns values into what is stored of them, and back."""

    def __init__(self, codec: PayloadCodec | None = None, spill_bytes: int = SPILL_BYTES) -> None:
        self.codec = codec
        self.spill_bytes = spill_bytes

    # -- writing ------------------------------------------------------------------------------

    def change(self, command: Change) -> Change:
        """Return what is written for a change: itself, where nothing has to be done."""
        if self.codec is None and not self._is_remarkable(command):
            return command
        found = _Gathered(command.contents)
        sealed = copy.copy(command)
        sealed.original = command
        sealed.rows = [self._row(row, found) for row in command.rows]
        if command.states:
            sealed.states = [self._state(entry, found) for entry in command.states]
        if command.starts:
            sealed.starts = [self.start(start) for start in command.starts]
        if command.waits:
            sealed.waits = [self._wait(wait, found) for wait in command.waits]
        if command.ending is not None:
            sealed.ending = self._ending(command.ending, found)
        if command.renewal is not None:
            sealed.renewal = self._renewal(command.renewal, found)
        sealed.contents, sealed.refs = self._apart(found), sorted(found.refs)
        return sealed

    def _is_remarkable(self, change: Change) -> bool:
        """Say whether anything of a change lies apart, or refers to what does."""
        most = self.spill_bytes
        if change.contents:
            return True
        for row in change.rows:
            for text in (row.body, row.change):
                if text is not None and (len(text) > most or BLOB_SIGN in text):
                    return True
        for entry in change.states:
            body = entry.body
            if entry.refs or len(body) > most or BLOB_SIGN in body or self._is_large(entry.jump):
                return True
        if not (change.starts or change.ending or change.waits or change.renewal):
            return False
        ending, renewal = change.ending, change.renewal
        return (
            (ending is not None and self._is_large(ending.body))
            or (renewal is not None and self._is_any_large(renewal.payload, renewal.state))
            or any(self.start(start) is not start for start in change.starts)
            or any(self._is_large(wait.body) for wait in change.waits)
        )

    def _is_large(self, text: str | None) -> bool:
        return text is not None and (len(text) > self.spill_bytes or refers(text))

    def _is_any_large(self, one: str | None, other: str | None) -> bool:
        return self._is_large(one) or self._is_large(other)

    def may_refer(self, text: str) -> bool:
        """Say whether what is stored of a document, given in clear, may refer to blobs."""
        return self._is_large(text)

    def start(self, start: Start) -> Start:
        """Return what is written for a start: itself, where nothing has to be done."""
        if self.codec is None and not (
            self._is_large(start.payload) or self._is_large(start.state)
        ):
            return start
        found = _Gathered(start.contents)
        payload = self._optional(start.payload, found)
        state = None if start.state is None else self._document(start.state, found)
        sealed = replace(
            start,
            payload=payload,
            payload_type=self._type(start.payload_type),
            state=state,
            original=start,
        )
        sealed.contents, sealed.refs = self._apart(found), sorted(found.refs)
        return sealed

    def _apart(self, found: _Gathered) -> list[Content]:
        found.refs.update(found.contents)
        return [self.stored(each) for each in found.contents.values()]

    def _row(self, row: Row, found: _Gathered) -> Row:
        found.contents.update({each.hash: each for each in row.contents})
        sealed = replace(row, type=self._type(row.type), info=self._info(row))
        if row.ok is False:
            sealed.body = self._failure(row.body)
        elif row.kind == Kind.SUSPEND and row.body is not None:
            found.refs |= references(row.body)
            sealed.body = self.seal_answer(row.body)
        else:
            sealed.body = self._optional(row.body, found)
        if row.change is not None:
            sealed.change = self._value(row.change, found)
        return sealed

    def _info(self, row: Row) -> str | None:
        # What invocations keep there, the ids of children, names what other tables have in clear.
        return row.info if row.info is None or row.kind != Kind.SUSPEND else self.seal(row.info)

    def _state(self, entry: StateEntry, found: _Gathered) -> StateEntry:
        found.refs.update(entry.refs)
        jump = self._optional(entry.jump, found)
        if entry.body.startswith("["):
            return replace(entry, body=self._value(entry.body, found), jump=jump)
        return replace(entry, body=self._document(entry.body, found), jump=jump)

    def _document(self, text: str, found: _Gathered) -> str:
        """Spill the large fields of a state, each by itself: those that stay are stored once."""
        found.refs |= references(text)
        if len(text) > self.spill_bytes:
            fields = delta.split(text)
            for name, value in fields.items():
                if len(value) > self.spill_bytes:
                    fields[name] = self._spill(value.decode(), found).encode()
            text = delta.document(fields)
        return self.seal(text)

    def _wait(self, wait: Wait, found: _Gathered) -> Wait:
        found.refs |= references(wait.body or "")
        return replace(wait, body=None if wait.body is None else self.seal(wait.body))

    def _ending(self, ending: Ending, found: _Gathered) -> Ending:
        if ending.status is not Status.COMPLETED:
            return replace(ending, body=self._failure(ending.body))
        found.contents.update({each.hash: each for each in ending.contents})
        body = self._optional(ending.body, found)
        return replace(ending, body=body, type=self._type(ending.type))

    def _renewal(self, renewal: Renewal, found: _Gathered) -> Renewal:
        found.contents.update({each.hash: each for each in renewal.contents})
        return replace(
            renewal,
            payload=self._optional(renewal.payload, found),
            payload_type=self._type(renewal.payload_type),
            state=None if renewal.state is None else self._document(renewal.state, found),
        )

    def _optional(self, text: str | None, found: _Gathered) -> str | None:
        return None if text is None else self._value(text, found)

    def _value(self, text: str, found: _Gathered) -> str:
        found.refs |= references(text)
        return self._spill(text, found) if len(text) > self.spill_bytes else self.seal(text)

    def _type(self, text: str | None) -> str | None:
        # The name of a class is no secret, but a descriptor may have the keys of a dict in it.
        return self.seal(text) if text is not None and text.startswith("{") else text

    def _failure(self, text: str | None) -> str | None:
        if text is None or self.codec is None:
            return text
        return wrap_failure(failure.load(text), self._encoded(text))

    def _spill(self, text: str, found: _Gathered) -> str:
        content = self.content(text.encode())
        found.contents[content.hash] = content
        found.refs.add(content.hash)
        return wrap("$spilled", content.hash, text)

    def content(self, data: bytes) -> Content:
        """Return bytes as what is stored apart."""
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        return Content(hashlib.sha256(data).hexdigest(), len(data), lambda: iter(pieces))

    def stored(self, content: Content) -> Content:
        """Return a content whose chunks are those that are stored."""
        return replace(content, chunks=lambda: map(self.seal_chunk, content.chunks()))

    def seal_chunk(self, chunk: bytes) -> bytes:
        """Return a chunk as it is stored: its first byte says whether a codec encrypted it."""
        return _CLEAR + chunk if self.codec is None else _ENCODED + self.codec.encode(chunk)

    def seal(self, text: str) -> str:
        """Return a text encrypted, if there is a codec."""
        return text if self.codec is None else wrap("$sealed", self._encoded(text), text)

    def seal_answer(self, text: str) -> str:
        """Return what a suspension was answered with: the store reads when, and not what."""
        if self.codec is None:
            return text
        facts = json.loads(text)
        data = json.dumps(facts.pop("data", None))
        return f'{json.dumps(facts)[:-1]}, "data": {self.seal(data)}}}'

    def _encoded(self, text: str) -> str:
        assert self.codec is not None
        return base64.b64encode(self.codec.encode(text.encode())).decode()

    # -- reading ------------------------------------------------------------------------------

    def open(self, text: str) -> str:
        """Return a text decrypted; one that is not encrypted as it is."""
        inner = unwrap("$sealed", text)
        return text if inner is None else self._decoded(inner)

    def open_closed(self, text: str | None) -> str | None:
        """Return what a suspension says, or how it ended, for the store to look at."""
        if text is None or "$sealed" not in text:
            return text
        return self.open_answer(self.open_failure(text))

    def open_answer(self, text: str) -> str:
        """Return what `seal_answer` made, as it was."""
        return _PIECE.sub(lambda found: self._decoded(found["inner"] or found["item"]), text)

    async def load_pieces(self, text: str, source: BlobSource) -> str:
        """Return a text in which stored texts of others stand, with these as they were."""
        if "$s" not in text:
            return text
        parts: list[str] = []
        at = 0
        for found in _PIECE.finditer(text):
            parts.append(text[at : found.start()])
            kind, inner, message = found["kind"] or found["list"], found["inner"], found["message"]
            if message is not None:
                parts.append(json.dumps(failure.load(self._decoded(message)).message))
            elif kind == "sealed":
                parts.append(await self.load(self._decoded(inner or found["item"]), source))
            else:
                parts.append((await self.blob(inner or found["item"], source)).decode())
            at = found.end()
        return "".join([*parts, text[at:]])

    def open_failure(self, text: str) -> str:
        """Return a stored failure decrypted."""
        inner = unwrap_failure(text)
        return text if inner is None else self._decoded(inner)

    def _decoded(self, inner: str) -> str:
        return self._opened(base64.b64decode(inner)).decode()

    def open_chunk(self, chunk: bytes) -> bytes:
        """Return what a stored chunk holds."""
        return self._opened(chunk[1:]) if chunk[:1] == _ENCODED else chunk[1:]

    def _opened(self, data: bytes) -> bytes:
        if self.codec is None:
            raise EncryptionKeyError(
                "a stored value is encrypted, and this client has no codec; give it "
                "codec=EncryptionCodec(keys=[...]), or set POLOS_ENCRYPTION_KEYS"
            )
        return self.codec.decode(data)

    async def load(self, text: str, source: BlobSource) -> str:
        """Return a text decrypted, with what lies apart put back in its place."""
        text = self.open(text)
        whole = unwrap("$spilled", text)
        if whole is not None:
            return (await self.blob(whole, source)).decode()
        if "$spilled" not in text or not text.startswith("{"):
            return text
        fields = delta.split(text)
        for name, value in fields.items():
            apart = unwrap("$spilled", value[:100].decode(errors="replace"))
            if apart is not None:
                fields[name] = await self.blob(apart, source)
        return delta.document(fields)

    async def load_entry(self, entry: StateEntry, source: BlobSource) -> None:
        """Open a state entry in place; one that is read for its jump has no body."""
        if entry.body:
            entry.body = await self.load(entry.body, source)
        if entry.jump is not None:
            entry.jump = await self.load(entry.jump, source)

    async def blob(self, hash: str, source: BlobSource) -> bytes:
        """Read a blob whole, and check that it is what it says."""
        data = b"".join([part async for part in self.stream(hash, source)])
        if hashlib.sha256(data).hexdigest() != hash:
            raise BlobNotFoundError(hash)
        return data

    async def stream(self, hash: str, source: BlobSource) -> AsyncIterator[bytes]:
        """Yield a blob chunk by chunk."""
        number = 0
        while (chunk := await source.blob_chunk(hash, number)) is not None:
            yield self.open_chunk(chunk)
            number += 1
        if not number and hash != _EMPTY:
            raise BlobNotFoundError(hash)

    # -- new keys -----------------------------------------------------------------------------

    @staticmethod
    def stays_clear(column: str, text: str) -> bool:
        """Say whether a stored text is one that is never encrypted, or not in this row."""
        if column in ("blocked_reason", "info"):
            return unwrap("$sealed", text) is None
        return column.endswith("type") and not text.startswith("{")

    @staticmethod
    def is_clear(chunk: bytes) -> bool:
        """Say whether a stored chunk is not encrypted."""
        return chunk[:1] == _CLEAR

    def resealed_chunk(self, chunk: bytes) -> bytes | None:
        """Return a stored chunk under the first key, or None if it is there already."""
        if self.codec is None or (chunk[:1] == _ENCODED and self.codec.is_current(chunk[1:])):
            return None
        return self.seal_chunk(self.open_chunk(chunk))

    def resealed_answer(self, text: str) -> str | None:
        """Return an answer to a suspension under the first key, or None if it is there already."""
        if self.codec is None or '"timed_out"' in text:
            return None
        return self.resealed_pieces(text) if _PIECE.search(text) else self.seal_answer(text)

    def resealed_pieces(self, text: str) -> str | None:
        """Return a text with what is encrypted in it under the first key; None if it all is."""

        def again(found: re.Match[str]) -> str:
            kind, message = found["kind"] or found["list"], found["message"]
            inner = message or found["inner"] or found["item"]
            if kind == "spilled" or self._is_current(inner):
                return found[0]
            return found[0].replace(inner, self._encoded(self._decoded(inner)))

        new = _PIECE.sub(again, text)
        return None if new == text else new

    def _is_current(self, inner: str) -> bool:
        return self.codec is None or self.codec.is_current(base64.b64decode(inner))

    def resealed(self, text: str, *, failed: bool = False) -> str | None:
        """Return a stored text under the first key, or None if it is there already."""
        if self.codec is None:
            return None
        inner = unwrap_failure(text) if failed else unwrap("$sealed", text)
        if inner is not None and self.codec.is_current(base64.b64decode(inner)):
            return None
        if failed:
            return self._failure(self.open_failure(text))
        if unwrap("$spilled", text) is not None:
            return None  # refers to chunks, which are rewritten by themselves
        return self.seal(self.open(text))


def refs_of(texts: Sequence[str | None]) -> set[str]:
    """Return the blobs that stored texts refer to in clear."""
    found: set[str] = set()
    for text in texts:
        if text is not None:
            found |= references(text) | set(_SPILLED.findall(text))
    return found
