"""Blobs ahead of the commits that refer to them, and those that nobody needs any more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from polos.core.clock import Clock
from polos.core.content import Content
from polos.store.protocol import Store

GRACE_US = 86_400 * 1_000_000
"""So long a blob stays that no execution refers to (yet)."""
RIDE_MAX = 1_048_576
"""Bytes up to which a content in memory is stored by the commit that refers to it."""
COLLECT_MAX = 100


class Blobs:
    """Stores blobs piece by piece, and reads them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def keep(self, contents: Sequence[Content], *, all: bool = False) -> None:
        """Store contents that are too large to ride with a commit, or are not in memory, or all."""
        store, now = self._store, self._clock.now()
        for content in contents:
            if not all and content.in_memory and content.size <= RIDE_MAX:
                continue
            if not await store.blob_begin(content.hash, content.size, now):
                continue
            count = 0
            for chunk in content.chunks():
                await store.blob_put(content.hash, count, store.lining.seal_chunk(chunk))
                count += 1
            await store.blob_finish(content.hash, content.size, count, now)

    def read(self, hash: str) -> AsyncIterator[bytes]:
        """Yield a blob chunk by chunk; `BlobNotFoundError` if it is not in the store."""
        return self._store.lining.stream(hash, self._store)


async def collect(store: Store, now: int, grace_us: int = GRACE_US) -> int:
    """Remove blobs that no execution has referred to for a while; returns how many."""
    count = 0
    while found := await store.blob_collect(now - grace_us, COLLECT_MAX):
        count += found
    return count
