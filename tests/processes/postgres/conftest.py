"""A schema on a real server for the subprocesses of one test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import fresh_url, stop_servers
from tests.processes.postgres import places

__all__ = ["stop_servers"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[places.PostgresSite]:
    place = places.PostgresSite(tmp_path, fresh_url())
    try:
        yield place
    finally:
        place.end()
