"""Blobs in all stores: written with what refers to them, once, and gone when nobody does."""

import asyncio
import hashlib
from typing import Any

import pytest

from polos.core.content import Content
from polos.core.model import StateEntry
from polos.engine import blobs
from polos.errors import BlobNotFoundError
from polos.store.lined import LinedStore
from polos.store.lining import CHUNK_BYTES, Lining
from polos.store.protocol import Store
from polos.testing.clock import ManualClock
from tests.store.conftest import Opener
from tests.store.records import (
    SECOND,
    T0,
    change,
    done_row,
    ending,
    new_start,
    owned_start,
    read,
    write_all,
)

DAY = 86_400 * SECOND
LARGE = '"' + "x" * 100_000 + '"'
OTHER = '"' + "y" * 100_000 + '"'


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def content(data: bytes) -> Content:
    return Lining().stored(Lining().content(data))


async def finish(store: Store, id: str, *bodies: str, **options: Any) -> None:
    await write_all(store, owned_start(id, **options))
    rows = [done_row(n + 1, f"k{n}", body) for n, body in enumerate(bodies)]
    await write_all(store, change(id, 1, *rows, ending=ending()))


async def keep(store: Store, now: int, contents: list[Content], *, all: bool = False) -> None:
    await blobs.Blobs(store, ManualClock(now / 1e6)).keep(contents, all=all)


async def test_large_texts_lie_apart_and_come_back_whole(store: Store) -> None:
    start = owned_start("e1", state=f'{{"small":1,"large":{LARGE}}}')
    start.payload = LARGE
    await write_all(store, start)
    rows = [done_row(1, "a", LARGE), done_row(2, "b", "1"), done_row(3, "c", OTHER)]
    states = [StateEntry(1, "a", T0, f'[["large",0,0,{OTHER}]]')]
    await write_all(store, change("e1", 1, *rows, states=states, ending=ending(body=OTHER)))
    raw = await read(store, "e1")
    assert raw.payload == f'{{ "$spilled":"{digest(LARGE)}"}}'
    steps = await store.steps("e1", "e1")
    assert [len(row.body or "") < 100 for row in steps] == [True, True, True]
    entries = await store.states("e1", "e1")
    assert entries[0].body == f'{{"small":1,"large":{{ "$spilled":"{digest(LARGE)}"}}}}'
    lined = LinedStore(store, Lining())
    record = await lined.execution("e1")
    assert record is not None
    assert (record.payload, record.result) == (LARGE, OTHER)
    assert [row.body for row in await lined.steps("e1", "e1")] == [LARGE, "1", OTHER]
    entries = await lined.states("e1", "e1")
    assert entries[0].body == f'{{"small":1,"large":{LARGE}}}'
    assert entries[1].body == f'[["large",0,0,{OTHER}]]'


async def test_a_value_is_stored_once_however_often_it_occurs(store: Store) -> None:
    for n in range(3):
        await finish(store, f"e{n}", LARGE, LARGE, OTHER)
    found = {table.name: table.rows for table in (await store.stats()).tables}
    assert found["blob"] == found["blob_chunk"] == 2
    assert found["blob_ref"] == 6


async def test_a_refused_change_stores_no_blob(store: Store) -> None:
    await write_all(store, owned_start("e1"))
    told = change("e1", 7, done_row(1, "a", LARGE))
    store.submit(told)
    await write_all(store, new_start("e2"))
    assert await store.blob_size(digest(LARGE)) is None


async def test_a_start_that_is_known_by_its_key_stores_no_blob(store: Store) -> None:
    await write_all(store, new_start("e1", idempotency_key="k"))
    again = new_start("e2", idempotency_key="k")
    again.payload = LARGE
    store.submit(again)
    await write_all(store, new_start("e3"))
    assert await store.blob_size(digest(LARGE)) is None


async def test_what_nobody_refers_to_any_more_goes_after_a_while(store: Store) -> None:
    await finish(store, "e1", LARGE)
    await finish(store, "e2", LARGE, OTHER)
    await store.prune(["e2"], T0 + 1)
    assert await store.blob_collect(T0, 10) == 0  # not old enough
    assert await store.blob_collect(T0 + 1, 10) == 1
    assert await store.blob_size(digest(OTHER)) is None
    assert await store.blob_chunk(digest(OTHER), 0) is None
    assert await store.blob_size(digest(LARGE)) is not None
    await store.prune(["e1"], T0 + 1)
    assert await store.blob_collect(T0 + 1, 10) == 1
    assert {t.name: t.rows for t in (await store.stats()).tables}["blob_chunk"] == 0


async def test_a_stored_blob_is_there_without_a_reference_for_a_day(store: Store) -> None:
    stored = content(b"abc")
    await keep(store, T0, [Lining().content(b"abc")], all=True)
    assert await blobs.collect(store, T0 + DAY) == 0
    assert await blobs.collect(store, T0 + DAY + 1) == 1
    await keep(store, T0, [Lining().content(b"abc")], all=True)
    await keep(store, T0 + DAY, [Lining().content(b"abc")], all=True)  # kept anew
    assert await blobs.collect(store, T0 + DAY + 1) == 0
    assert (await store.blob_size(stored.hash)) is not None


async def test_a_large_blob_comes_and_goes_in_pieces(store: Store) -> None:
    data = bytes(range(256)) * 4096 * 3 + b"end"
    await keep(store, T0, [Lining().content(data)])
    hash = hashlib.sha256(data).hexdigest()
    found = await store.blob_size(hash)
    assert found is not None
    assert (found.size, found.chunks) == (len(data), 4)
    pieces = [piece async for piece in Lining().stream(hash, store)]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) == CHUNK_BYTES


async def test_a_blob_that_was_not_written_to_its_end_is_not_there(store: Store) -> None:
    data = Lining().content(b"abc")
    await store.blob_begin(data.hash, 3, T0)
    await store.blob_put(data.hash, 0, b"\x00ab")
    assert await store.blob_size(data.hash) is None
    assert await store.blob_chunk(data.hash, 0) is None
    with pytest.raises(BlobNotFoundError):
        await Lining().blob(data.hash, store)
    assert await store.blob_collect(T0 + 1, 10) == 1


async def test_a_commit_and_a_collection_at_once_leave_what_is_referred_to(
    open_store: Opener,
) -> None:
    one, other = await open_store(), await open_store()
    for n in range(20):
        text = f'"{n}' + "z" * 70_000 + '"'
        await keep(one, T0, [Lining().content(text.encode())], all=True)
        start = owned_start(f"e{n}")
        start.payload = text
        await asyncio.gather(write_all(one, start), other.blob_collect(T0 + 1, 100))
        record = await LinedStore(other, Lining()).execution(f"e{n}")
        assert record is not None
        assert record.payload == text
    assert await other.blob_collect(T0 + DAY, 100) == 0
