"""Every test here is guarded: a registry of its own, and an end to every hang."""

from typing import Any

import pytest

from polos.store.sqlite.store import MemoryDatabase
from polos.testing import ManualClock
from polos.testing.postgres import PostgresDatabase
from tests.guards import no_hang, own_registry
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["no_hang", "own_registry", "stop_servers"]


@pytest.fixture(params=["sqlite", *NAMES])
async def world(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return an empty database and a clock that stands still: what simulations of a test share."""
    clock = ManualClock(auto=False)
    if request.param == "sqlite":
        return {"database": MemoryDatabase(), "clock": clock}
    database = PostgresDatabase(fresh_url(request.param))
    await database.clean()
    return {"database": database, "clock": clock}
