"""Blobs ahead of the commits that refer to them, and those that nobody needs any more."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core.content import Content
from polos.store.protocol import Store

GRACE_US = 86_400 * 1_000_000
"""So long a blob stays that no execution refers to (yet)."""
RIDE_MAX = 1_048_576
"""Bytes up to which a content in memory is stored by the commit that refers to it."""
COLLECT_MAX = 100


async def keep(store: Store, now: int, contents: Sequence[Content], *, all: bool = False) -> None:
    """Store contents piece by piece: those that are large or not in memory, or all of them."""
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


async def collect(store: Store, now: int, grace_us: int = GRACE_US) -> int:
    """Remove blobs that no execution has referred to for a while; returns how many."""
    count = 0
    while found := await store.blob_collect(now - grace_us, COLLECT_MAX):
        count += found
    return count
