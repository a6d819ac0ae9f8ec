"""Content on its way into a store, apart from the values that refer to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True, frozen=True)
class Content:
    """Bytes on their way into the store, found again by the digest of what they hold."""

    hash: str
    """SHA-256 of the content, as hexadecimal text."""
    size: int
    """Bytes of the content, before a codec encrypted it."""
    chunks: Callable[[], Iterator[bytes]]
    """Returns the content in pieces, anew with each call."""
    in_memory: bool = True
    """Whether the pieces are at hand; else they are stored ahead of the commit."""


class Dumped(NamedTuple):
    """JSON text, and the contents of the blobs in it that are not stored yet."""

    text: str
    contents: Sequence[Content] = ()
