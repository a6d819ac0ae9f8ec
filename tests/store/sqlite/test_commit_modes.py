"""A lone commit with `commit=inline` is made on the loop, however slow the last one was."""

import time

from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import SqliteStore
from tests.store.records import change, done_row, owned_start, write_all


def stall(moment: str) -> None:
    """Make a commit take so long that the average of all is above the limit."""
    if moment == "before":
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            pass


async def test_inline_stays_inline_after_a_slow_commit() -> None:
    store = SqliteStore(Location("sqlite://?commit=inline"))
    await store.open()
    await write_all(store, owned_start("a"))
    store.gate = stall
    assert store.commit_now(change("a", 1, done_row(1, "x")))
    store.gate = None
    assert store.commit_now(change("a", 1, done_row(2, "y")))
    assert [row.key for row in await store.steps("a", "a")] == ["x", "y"]
    await store.close()
