"""A client on a database of its own, and a whole Polos in memory on virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import PolosClient
from polos.testing import Simulation
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["stop_servers"]


@pytest.fixture(params=["sqlite", NAMES[-1]])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if request.param in NAMES:
        return fresh_url(request.param)
    return f"sqlite:///{tmp_path}/polos.db"


@pytest.fixture
async def client(url: str) -> AsyncIterator[PolosClient]:
    async with PolosClient(url) as client:
        yield client


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    async with Simulation() as simulation:
        yield simulation
