"""A lone command that is sent at once, without a task: its answer, its faults, what comes after."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polos.core.model import ClaimLost, Start, Status, Wait
from polos.errors import StoreError
from polos.store.postgres.batch import lock
from polos.store.postgres.flight import Flight
from polos.store.postgres.links import Link
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url
from tests.store.records import (
    T0,
    Result,
    Told,
    change,
    done_row,
    ending,
    keys,
    owned_start,
    read,
    write_all,
)


@pytest.fixture
async def store() -> AsyncIterator[PostgresStore]:
    """A store whose writer has prepared the statements of a lone row and a lone start."""
    store = PostgresStore(Location(fresh_url()))
    await store.open()
    await write_all(store, owned_start("x"))
    for seq in (1, 2):
        await sent(store, change("x", 1, done_row(seq, f"old{seq}"), new=seq == 2))
    yield store
    await store.close()


async def sent(store: PostgresStore, command: Told | Start, *, at_once: bool = True) -> Result:
    """Send a command, and at once if it must be; returns what it was called back with."""
    heard = asyncio.Event()
    told: list[Result] = []

    def hear(result: Result) -> None:
        told.append(result)
        heard.set()

    if isinstance(command, Start):
        command.done = hear
    else:
        command.on_done = hear
    await asyncio.sleep(0)  # so that nothing else is about to run
    if not store.commit_now(command):
        assert not at_once
        store.submit(command)
    await asyncio.wait_for(heard.wait(), 100)
    return told[0]


def tasks() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if "_drain" in repr(task.get_coro())}


async def test_a_row_is_in_flight_without_a_task(store: PostgresStore) -> None:
    told: list[Result] = []
    row = change("x", 1, done_row(3, "new"), new=True, on_done=told.append)
    assert store.commit_now(row)
    assert store.busy
    assert not tasks()
    await store.written()
    assert told == [None]
    assert not store.busy
    assert await keys(store, "x") == ["old1", "old2", "new"]


async def test_what_comes_meanwhile_is_written_behind_it(store: PostgresStore) -> None:
    order: list[str] = []
    commands = [
        change("x", 1, done_row(n, f"s{n}"), on_done=lambda _, n=n: order.append(f"s{n}"))
        for n in (3, 4, 5)
    ]
    assert store.commit_now(commands[0])
    assert not store.commit_now(commands[1])
    store.submit(commands[1])
    store.submit(commands[2])
    await store.written()
    assert order == ["s3", "s4", "s5"]
    assert await keys(store, "x") == ["old1", "old2", "s3", "s4", "s5"]


async def test_nothing_is_sent_alone_while_others_are_about_to_run(store: PostgresStore) -> None:
    asyncio.get_running_loop().call_soon(lambda: None)
    assert not store.commit_now(change("x", 1, done_row(3, "new")))
    await asyncio.sleep(0)
    assert store.commit_now(change("x", 1, done_row(3, "new")))


async def test_a_lost_claim_is_told(store: PostgresStore) -> None:
    assert isinstance(await sent(store, change("x", 2, done_row(3, "new"), new=True)), ClaimLost)
    assert await keys(store, "x") == ["old1", "old2"]


async def test_a_new_row_never_replaces_one_that_is_there(store: PostgresStore) -> None:
    result = await sent(store, change("x", 1, done_row(2, "other", '"other"'), new=True))
    assert isinstance(result, StoreError)
    assert await keys(store, "x") == ["old1", "old2"]
    assert await sent(store, change("x", 1, done_row(3, "new"), new=True)) is None


async def test_a_row_that_the_database_refuses_fails_alone(store: PostgresStore) -> None:
    told: list[Result] = []
    store.commit_now(change("x", 1, done_row(3, "a\0b"), new=True, on_done=told.append))
    store.submit(change("x", 1, done_row(4, "after"), on_done=told.append))
    await store.written()
    assert isinstance(told[0], StoreError)
    assert told[1:] == [None]
    assert await keys(store, "x") == ["old1", "old2", "after"]


async def test_what_its_seal_makes_too_much_for_one_statement_is_written(
    store: PostgresStore,
) -> None:
    waits = change("x", 1, done_row(3, "open", turn=None, ok=None, completed_at=None))

    def seal() -> None:
        waits.status = Status.WAITING
        waits.waits = [Wait("x", "x", 3, "suspend", "k", T0)]

    waits.on_seal = seal
    assert await sent(store, waits) == Status.WAITING
    assert (await read(store, "x")).status is Status.WAITING


async def test_a_lone_start_and_ending(store: PostgresStore) -> None:
    assert await sent(store, owned_start("y")) == "y"
    assert await sent(store, change("y", 1, ending=ending())) is None
    assert (await read(store, "y")).status is Status.COMPLETED


async def server_pid(store: PostgresStore) -> int:
    assert store._link is not None
    return store._link.server_pids()[0]


async def test_a_connection_that_was_lost_before_it(store: PostgresStore) -> None:
    pid = await server_pid(store)
    await store.read(lambda link: link.row("SELECT pg_terminate_backend($1, 5000)", pid))
    # Whether this process has heard of it already is up to the system.
    lost = change("x", 1, done_row(3, "new"), new=True)
    assert await sent(store, lost, at_once=False) is None
    assert await keys(store, "x") == ["old1", "old2", "new"]


async def test_a_connection_that_is_lost_on_the_way(store: PostgresStore) -> None:
    pid = await server_pid(store)
    told: list[Result] = []

    async def verb(link: Link, again: bool) -> None:
        await lock(link, [("x", "x")])
        assert store.commit_now(change("x", 1, done_row(3, "new"), new=True, on_done=told.append))
        await link.row("SELECT pg_terminate_backend($1, 5000)", pid)

    await store.do(verb)
    await asyncio.wait_for(store.written(), 100)
    assert told == [None]
    assert await keys(store, "x") == ["old1", "old2", "new"]


async def test_who_was_killed_hears_nothing_of_what_was_in_flight(store: PostgresStore) -> None:
    told: list[Result] = []
    assert store.commit_now(change("x", 1, done_row(3, "new"), new=True, on_done=told.append))
    store.kill()
    for _ in range(10):
        await asyncio.sleep(0)
    assert told == []


async def test_a_flight_leaves_nothing_for_the_collector(store: PostgresStore) -> None:
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        await sent(store, change("x", 1, done_row(3, "new"), new=True))
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, Flight)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
