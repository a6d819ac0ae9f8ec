"""Reads: lists newest first, pages, filters, ends, and the latest state from its last snapshot."""

from typing import Any

import pytest

from polos.core.model import StateEntry, Status
from polos.store.protocol import Store
from tests.store.records import (
    T0,
    change,
    ending,
    new_start,
    owned_start,
    read,
    write_all,
)


async def ids(store: Store, filters: dict[str, Any], limit: int = -1) -> list[str]:
    return [each.id for each in await store.listing(filters, limit)]


async def test_a_list_is_newest_first_and_pages_on(store: Store) -> None:
    await write_all(store, *(new_start(f"{n:02}") for n in (3, 1, 5, 2, 4)))
    assert await ids(store, {}) == ["05", "04", "03", "02", "01"]
    assert await ids(store, {}, 2) == ["05", "04"]
    assert await ids(store, {"before": "04"}, 2) == ["03", "02"]
    assert await ids(store, {"before": "01"}) == []
    assert await ids(store, {"before": "02"}, 10) == ["01"]


async def test_filters_apply_together(store: Store) -> None:
    await write_all(
        store,
        new_start("1", "one", session_id="s"),
        new_start("2", "two", session_id="s"),
        new_start("3", "one", session_id="t"),
        owned_start("4", "w1"),
    )
    await write_all(
        store, change("4", 1, starts=[new_start("5", "one", root_id="4", parent_id="4")])
    )
    await store.cancel("3", T0)
    assert await ids(store, {"workflow_id": "one"}) == ["5", "3", "1"]
    assert await ids(store, {"status": "cancelled"}) == ["3"]
    assert await ids(store, {"session_id": "s"}) == ["2", "1"]
    assert await ids(store, {"parent_id": "4"}) == ["5"]
    assert await ids(store, {"root_id": "4"}) == ["5", "4"]
    assert await ids(store, {"workflow_id": "one", "session_id": "s"}) == ["1"]
    assert await ids(store, {"workflow_id": "one", "status": "queued", "before": "5"}) == ["1"]
    assert await ids(store, {"workflow_id": "nothing"}) == []


async def test_finished_gives_those_that_have_ended(store: Store) -> None:
    await write_all(store, *(owned_start(id) for id in "abcd"))
    await write_all(store, change("a", 1, ending=ending()))
    await write_all(store, change("b", 1, ending=ending(Status.FAILED, "{}")))
    await store.cancel("c", T0)
    found = await store.finished(["a", "b", "c", "d", "nobody"])
    assert sorted((e.id, str(e.status)) for e in found) == [("a", "completed"), ("b", "failed")]
    assert found[0] == await read(store, found[0].id)
    assert await store.finished([]) == []


async def test_an_ending_tells_what_it_was(store: Store) -> None:
    await write_all(store, owned_start("a"), owned_start("b"))
    good = ending(body='{"x": 1}', at=T0 + 9)
    good.type = "T"
    await write_all(store, change("a", 1, ending=good))
    found = await read(store, "a")
    assert (found.status, found.result, found.result_type) == (Status.COMPLETED, '{"x": 1}', "T")
    assert (found.error, found.completed_at, found.started_at) == (None, T0 + 9, T0 + 9)
    await write_all(store, change("b", 1, ending=ending(Status.FAILED, '{"m": 1}')))
    found = await read(store, "b")
    assert (found.result, found.error) == (None, '{"m": 1}')


@pytest.mark.parametrize("snapshots", [(0,), (0, 3), (0, 3, 6), (0, 1, 2, 3, 4, 5, 6, 7, 8)])
async def test_the_latest_state_is_read_from_the_last_snapshot_on(
    store: Store, snapshots: tuple[int, ...]
) -> None:
    await write_all(store, owned_start("a", state='{"v": 0}'))
    entries = [
        StateEntry(n, f"k{n}", T0 + n, f'{{"v": {n}}}' if n in snapshots else f"[{n}]")
        for n in range(1, 9)
    ]
    for entry in entries:
        await write_all(store, change("a", 1, states=[entry]))
    everything = [StateEntry(0, None, T0, '{"v": 0}'), *entries]
    assert await store.states("a", "a") == everything
    assert await store.latest_states("a", "a") == everything[max(snapshots) :]
