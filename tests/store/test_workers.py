"""Workers: who is there, what happens to what they owned, crash loops, unregistered workflows."""

import asyncio

import pytest

from polos.core.model import ClaimLost, Status
from polos.errors import StoreClosedError
from polos.store.protocol import Store
from tests.store.conftest import Opener
from tests.store.records import (
    SECOND,
    T0,
    change,
    claim_all,
    done_row,
    ending,
    new_start,
    owned_start,
    read,
    worker,
    write,
    write_all,
    write_alone,
)


async def test_registered_workers_are_live_until_they_stop(store: Store) -> None:
    await store.register_worker(worker("w1", "one", "two"))
    await store.register_worker(worker("w2", "one", takes_queue=True))
    found = sorted(await store.live_workers(), key=lambda each: each.id)
    assert found == [worker("w1", "one", "two"), worker("w2", "one", takes_queue=True)]
    assert not await store.worker_stopped("w1")
    await store.stop_worker("w1", T0, crashed=False)
    assert await store.worker_stopped("w1")
    assert [each.id for each in await store.live_workers()] == ["w2"]


async def test_registering_again_refreshes(store: Store) -> None:
    await store.register_worker(worker("w1", "one"))
    await store.register_worker(worker("w1", "one", "two", takes_queue=True))
    assert await store.live_workers() == [worker("w1", "one", "two", takes_queue=True)]


async def test_a_worker_that_was_declared_dead_does_not_come_back(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await store.stop_worker("w1", T0, crashed=True)
    await store.register_worker(worker("w1", "one", "two"))
    assert await store.worker_stopped("w1")


@pytest.mark.parametrize("crashed", [True, False])
async def test_what_it_owned_is_handed_back_and_fenced(store: Store, crashed: bool) -> None:
    await store.register_worker(worker("w1"))
    await store.register_worker(worker("w2"))
    await write_all(store, owned_start("queued"), owned_start("running"), owned_start("waiting"))
    await write_all(store, owned_start("ended"), owned_start("other", "w2"))
    await write_all(store, change("running", 1, done_row(1, "x"), status=Status.RUNNING))
    await write(store, change("waiting", 1, status=Status.WAITING))
    await write_all(store, change("ended", 1, ending=ending()))
    assert await store.stop_worker("w1", T0, crashed=crashed) == 2
    for id in ("queued", "running"):
        found = await read(store, id)
        assert (found.status, found.attempt, found.blocked_reason) == (Status.QUEUED, 2, None)
        assert found.crashes == (1 if crashed else 0)
        assert isinstance(await write_alone(store, change(id, 1, done_row(9, "z"))), ClaimLost)
    assert (await read(store, "waiting")).status is Status.WAITING
    assert (await read(store, "ended")).status is Status.COMPLETED
    assert (await read(store, "other")).attempt == 1
    assert await claim_all(store, "w2") == ["queued", "running"]


async def test_a_worker_is_stopped_once(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a"))
    assert await store.stop_worker("w1", T0, crashed=True) == 1
    assert await store.stop_worker("w1", T0, crashed=True) == 0
    assert await store.stop_worker("nobody", T0, crashed=True) == 0
    assert (await read(store, "a")).crashes == 1


async def crash(store: Store, n: int, *, row: bool = False) -> None:
    """Let a new worker claim what is free, and die of it."""
    await store.register_worker(worker(f"w{n}"))
    for id in await claim_all(store, f"w{n}"):
        if row:
            attempt = (await read(store, id)).attempt
            await write_all(store, change(id, attempt, done_row(n, f"row {n}")))
    await store.stop_worker(f"w{n}", T0, crashed=True)


async def test_ten_crashes_in_a_row_without_a_row_park_the_execution(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a", "w1"))
    await store.stop_worker("w1", T0, crashed=True)
    for n in range(2, 10):
        await crash(store, n)
    found = await read(store, "a")
    assert (found.status, found.crashes) == (Status.QUEUED, 9)
    await crash(store, 10)
    found = await read(store, "a")
    assert (found.status, found.crashes) == (Status.WAITING, 10)
    assert "10 attempts in a row" in (found.blocked_reason or "")
    assert "retry" in (found.blocked_reason or "")
    assert await claim_all(store, "w11", now=T0 + 10**12, takes_queue=True) == []
    await store.retry("a", T0)
    assert (await read(store, "a")).crashes == 0
    assert await claim_all(store, "w11") == ["a"]


async def test_a_new_row_starts_the_count_anew(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a", "w1"))
    await store.stop_worker("w1", T0, crashed=True)
    for n in range(2, 9):
        await crash(store, n)
    assert (await read(store, "a")).crashes == 8
    await crash(store, 9, row=True)
    assert (await read(store, "a")).crashes == 1
    for n in range(10, 18):
        await crash(store, n)
    assert (await read(store, "a")).status is Status.QUEUED


async def test_an_orderly_end_is_no_crash(store: Store) -> None:
    await write_all(store, new_start("a"))
    for n in range(12):
        await store.register_worker(worker(f"w{n}", takes_queue=True))
        assert await claim_all(store, f"w{n}", takes_queue=True) == ["a"]
        await store.stop_worker(f"w{n}", T0, crashed=False)
    found = await read(store, "a")
    assert (found.status, found.crashes) == (Status.QUEUED, 0)


async def test_what_nobody_registers_is_parked_and_released_by_who_does(store: Store) -> None:
    await store.register_worker(worker("w1", "mine"))
    await store.register_worker(worker("w2", "theirs"))
    for id in ("mine", "theirs", "nobodys"):
        await write_all(store, new_start(id, id))
    await write_all(store, new_start("young", "nobodys", created_at=T0 + 5 * SECOND))
    await store.sort_out(T0 + 2 * SECOND)
    found = await read(store, "nobodys")
    assert found.status is Status.WAITING
    assert "registered" in (found.blocked_reason or "")
    assert "nobodys" in (found.blocked_reason or "")
    for id in ("mine", "theirs", "young"):
        assert (await read(store, id)).status is Status.QUEUED, id
    await store.register_worker(worker("w3", "nobodys"))
    await store.sort_out(T0)
    found = await read(store, "nobodys")
    assert (found.status, found.blocked_reason) == (Status.QUEUED, None)


async def test_what_a_stopped_worker_registered_is_registered_no_more(store: Store) -> None:
    await store.register_worker(worker("w1", "theirs"))
    await write_all(store, new_start("a", "theirs"))
    await store.sort_out(T0 + SECOND)
    assert (await read(store, "a")).status is Status.QUEUED
    await store.stop_worker("w1", T0, crashed=False)
    await store.sort_out(T0 + SECOND)
    assert (await read(store, "a")).status is Status.WAITING


async def test_sorting_out_leaves_other_blocks_alone(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.block("a", 1, "its state cannot be loaded: x")
    await store.sort_out(T0)
    assert (await read(store, "a")).blocked_reason == "its state cannot be loaded: x"


async def test_a_stopped_process_hands_back_without_a_loop(
    store: Store, open_store: Opener, request: pytest.FixtureRequest
) -> None:
    if "memory" in request.node.name:
        return  # what is in memory ends with the process
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a"))
    store.stop_worker_now("w1", T0)
    found = await read(await open_store(), "a")
    assert (found.status, found.attempt, found.crashes) == (Status.QUEUED, 2, 0)


async def test_liveness_is_seen_by_others(store: Store, open_store: Opener) -> None:
    other = await open_store()
    assert await other.liveness.look("w1") is None
    await store.liveness.hold("w1")
    first = await other.liveness.look("w1")
    assert first is not None
    assert await other.liveness.look("w1") == first
    await store.liveness.beat()
    assert await other.liveness.look("w1") != first
    assert await other.liveness.look("w2") is None
    await store.liveness.drop()
    assert await other.liveness.look("w1") is None


async def test_a_death_frees_the_lock(store: Store, open_store: Opener) -> None:
    other = await open_store()
    await store.liveness.hold("w1")
    store.liveness.die()
    async with asyncio.timeout(100):  # a server notices a moment later
        while await other.liveness.look("w1") is not None:  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0)
    await store.liveness.beat()  # of a dead one: nothing happens
    assert await other.liveness.look("w1") is None


async def test_a_closed_store_says_so(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.close()
    await store.close()  # twice is harmless
    with pytest.raises(StoreClosedError):
        await store.execution("a")
    with pytest.raises(StoreClosedError):
        await store.cancel("a", T0)


async def test_commits_of_others_are_noticed(
    store: Store, open_store: Opener, request: pytest.FixtureRequest
) -> None:
    if "memory" in request.node.name:
        return  # nobody else can see it
    if "postgres" in request.node.name:
        return  # it is rung for: tests/store/postgres
    other = await open_store()
    store.foreign_commits()
    assert not store.foreign_commits()
    await write_all(store, new_start("own"))
    assert not store.foreign_commits()
    await write_all(other, new_start("foreign"))
    assert store.foreign_commits()
    assert not store.foreign_commits()
