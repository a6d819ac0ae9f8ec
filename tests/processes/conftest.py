"""A folder with a database for the subprocesses of one test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import running


@pytest.fixture
def site(tmp_path: Path) -> Iterator[running.Site]:
    with running.site(tmp_path) as place:
        yield place
