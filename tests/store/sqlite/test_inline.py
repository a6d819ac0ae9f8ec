"""`commit=`: where a lone commit is made."""

from pathlib import Path

import pytest

from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import SqliteStore
from tests.store.records import new_start


@pytest.mark.parametrize(("mode", "inline"), [("inline", True), ("auto", False), ("thread", False)])
async def test_only_inline_is_on_the_spot_however_slow_the_disk(
    tmp_path: Path, mode: str, inline: bool
) -> None:
    store = SqliteStore(Location(f"sqlite:///{tmp_path}/polos.db?commit={mode}"))
    await store.open()
    store._commit_seconds = 1.0
    assert store.commit_now(new_start("a")) is inline
    await store.close()
