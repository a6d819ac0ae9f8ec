"""A client on a file of its own, and what is to be left of a refused call: nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import PolosClient


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/polos.db"


@pytest.fixture
async def client(url: str) -> AsyncIterator[PolosClient]:
    async with PolosClient(url) as client:
        yield client
