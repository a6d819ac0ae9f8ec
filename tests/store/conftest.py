"""The stores that the conformance suite runs on: each test once for every one of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from polos.store.postgres.location import Location as PostgresLocation
from polos.store.postgres.store import PostgresStore
from polos.store.protocol import Store
from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import MemoryDatabase, SqliteStore
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["stop_servers"]

Opener = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["sqlite-file", "sqlite-file-inline", "sqlite-memory", *NAMES])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Return a function that makes one more store of the same database."""
    if request.param in NAMES:
        url = fresh_url(request.param)
        return lambda: PostgresStore(PostgresLocation(url))
    if request.param == "sqlite-memory":
        database = MemoryDatabase()
        return lambda: SqliteStore(Location("sqlite://"), database)
    option = "?commit=inline" if request.param.endswith("inline") else ""
    return lambda: SqliteStore(Location(f"sqlite:///{tmp_path}/polos.db{option}"))


@pytest.fixture
async def open_store(make_store: Callable[[], Store]) -> AsyncIterator[Opener]:
    """Return a function that opens one more store of the same database."""
    opened: list[Store] = []

    async def open_one() -> Store:
        store = make_store()
        await store.open()
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: Opener) -> Store:
    return await open_store()
