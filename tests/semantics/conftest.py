"""Every test here is guarded: a registry of its own, and an end to every hang."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polos import PolosClient
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import ManualClock
from polos.testing.postgres import PostgresDatabase
from tests.guards import no_hang, own_registry
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["no_hang", "own_registry", "stop_servers"]

Open = Callable[[], Awaitable[PolosClient]]


@pytest.fixture(params=["sqlite", *NAMES])
async def world(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return an empty database and a clock that stands still: what simulations of a test share."""
    clock = ManualClock(auto=False)
    if request.param == "sqlite":
        return {"database": MemoryDatabase(), "clock": clock}
    database = PostgresDatabase(fresh_url(request.param))
    await database.clean()
    return {"database": database, "clock": clock}


@pytest.fixture(params=["sqlite", NAMES[0]])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Return a function that opens one more client of the same store."""
    url = f"sqlite:///{tmp_path / 'polos.db'}" if request.param == "sqlite" else fresh_url()
    clients: list[PolosClient] = []

    async def one() -> PolosClient:
        client = PolosClient(url)
        await client.node()
        clients.append(client)
        return client

    yield one
    for client in clients:
        await client.close()


@pytest.fixture
async def client(opened: Open) -> PolosClient:
    return await opened()
