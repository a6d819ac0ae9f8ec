"""Every test here is guarded: a registry of its own, and an end to every hang."""

from collections.abc import Awaitable, Callable

import pytest

from polos.testing import sweep
from polos.testing.postgres import PostgresDatabase
from tests.guards import no_hang, own_registry
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["no_hang", "own_registry", "stop_servers"]

LIMIT_SECONDS = 100.0
Fresh = Callable[[], Awaitable[PostgresDatabase]]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crowded machine is no hang."""
    monkeypatch.setattr(sweep, "LIMIT_SECONDS", LIMIT_SECONDS)


@pytest.fixture(params=NAMES)
def postgres(request: pytest.FixtureRequest) -> Fresh:
    """Return a function that empties a schema of a real server and returns it."""
    database = PostgresDatabase(fresh_url(request.param))

    async def fresh() -> PostgresDatabase:
        await database.clean()
        return database

    return fresh
