"""Bells: whoever can do something about a commit in another process hears of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url
from tests.store.records import (
    T0,
    change,
    child_start,
    ending,
    new_start,
    owned_start,
    worker,
    write,
    write_all,
    write_alone,
)


class Ear:
    """What a store was rung for."""

    def __init__(self, store: PostgresStore) -> None:
        self.heard: set[str] = set()
        self._more = asyncio.Event()
        store.on_bell = self._take

    def _take(self, topics: set[str]) -> None:
        self.heard |= topics
        self._more.set()

    async def hears(self, topic: str) -> None:
        async with asyncio.timeout(100):
            while topic not in self.heard:
                self._more.clear()
                await self._more.wait()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    url = fresh_url()
    stores = PostgresStore(Location(url)), PostgresStore(Location(url))
    for store in stores:
        await store.open()
    yield stores
    for store in stores:
        await store.close()


@pytest.mark.parametrize("shape", ["alone", "keyed", "many"])
async def test_a_queued_start_is_heard_of(
    pair: tuple[PostgresStore, PostgresStore], shape: str
) -> None:
    store, other = pair
    ear = Ear(other)
    if shape == "many":
        await write_all(store, new_start("a"), new_start("b"))
    else:
        key = "k" if shape == "keyed" else None
        await write_alone(store, new_start("a", idempotency_key=key))
    await ear.hears("queue")


@pytest.mark.parametrize("alone", [True, False])
async def test_an_ending_is_heard_of(
    pair: tuple[PostgresStore, PostgresStore], alone: bool
) -> None:
    store, other = pair
    await write_all(store, owned_start("a"), owned_start("b"))
    ear = Ear(other)
    if alone:
        await write_alone(store, change("a", 1, ending=ending()))
    else:
        await write(store, change("a", 1, ending=ending()), change("b", 1, ending=ending()))
    await ear.hears("ended")


async def test_the_owner_of_a_parent_hears_of_a_child_that_ended_elsewhere(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    store, other = pair
    await store.register_worker(worker("w2"))
    await write_all(store, owned_start("a", "w2"), child_start("c", "a", "a"))
    ear = Ear(other)
    await write_all(store, change("c", 1, root_id="a", ending=ending(parent_id="a")))
    await ear.hears("worker:w2")


async def test_an_owner_hears_of_a_cancellation(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    store, other = pair
    await write_all(store, owned_start("a", "w2"))
    await write_all(store, change("a", 1, status="running"))
    ear = Ear(other)
    await store.cancel("a", T0)
    await ear.hears("worker:w2")
