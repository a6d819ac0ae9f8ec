"""Where a lone command is committed: on the spot, or by the thread if there is one to take it."""

from pathlib import Path

import pytest

from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import SqliteStore
from tests.store.records import owned_start


@pytest.mark.parametrize(("commit", "on_the_spot"), [("auto", False), ("inline", True)])
async def test_a_slow_disk_is_left_to_the_thread(
    tmp_path: Path, commit: str, on_the_spot: bool
) -> None:
    store = SqliteStore(Location(f"sqlite:///{tmp_path}/polos.db?commit={commit}"))
    await store.open()
    store._measure(60.0)
    assert store.commit_now(owned_start("a")) is on_the_spot
    await store.close()


async def test_a_stall_changes_nothing_where_no_thread_writes() -> None:
    store = SqliteStore(Location("sqlite://"))
    await store.open()
    store._measure(60.0)
    assert store.commit_now(owned_start("a"))
    await store.close()
