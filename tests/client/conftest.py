"""A client on a file of its own, and a whole Polos in memory on virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import PolosClient
from polos.testing import Simulation


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/polos.db"


@pytest.fixture
async def client(url: str) -> AsyncIterator[PolosClient]:
    async with PolosClient(url) as client:
        yield client


@pytest.fixture
async def simulation() -> AsyncIterator[Simulation]:
    async with Simulation() as simulation:
        yield simulation
