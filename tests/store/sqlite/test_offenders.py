"""What SQLite itself refuses fails alone, in a batch as on the spot; verbs beside it succeed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from polos.errors import StoreError
from polos.store.lining import Lining
from polos.store.sqlite import verbs
from polos.store.sqlite.connection import Location
from polos.store.sqlite.store import SqliteStore
from tests.store.records import (
    T0,
    change,
    done_row,
    ending,
    keys,
    new_start,
    owned_start,
    read,
    write,
    write_all,
    write_alone,
)


@pytest.fixture(params=["auto", "inline", "thread"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(Location(f"sqlite:///{tmp_path}/polos.db?commit={request.param}"))
    await store.open()
    # So that a value is too big at once, and not at a gigabyte.
    store._writer.limit(apsw.SQLITE_LIMIT_LENGTH, 10_000)
    yield store
    await store.close()


async def test_a_value_that_is_too_big_fails_alone(store: SqliteStore) -> None:
    ids = [f"{n}" for n in range(7)]
    await write_all(store, *(owned_start(id) for id in ids))
    commands = [change(id, 1, done_row(1, "x", '"ok"')) for id in ids]
    commands[3].rows[0].body = "x" * 20_000
    results = await write(store, *commands)
    assert isinstance(results[3], StoreError)
    assert [r for r in results if r is not None] == [results[3]]
    assert [await keys(store, id) for id in ids] == [["x"]] * 3 + [[]] + [["x"]] * 3


async def test_several_offenders_fail_and_the_rest_is_written(store: SqliteStore) -> None:
    results = await write(
        store,
        *(new_start(f"{n}", session_id="s" * (20_000 if n % 3 == 0 else 1)) for n in range(9)),
    )
    for n, result in enumerate(results):
        assert isinstance(result, StoreError) if n % 3 == 0 else result == f"{n}"


async def test_one_on_the_spot_is_told(store: SqliteStore) -> None:
    await write_all(store, owned_start("a"))
    big = await write_alone(store, change("a", 1, done_row(1, "x", "x" * 20_000)))
    assert isinstance(big, StoreError)
    assert isinstance(
        await write_alone(store, change("a", 1, ending=ending(body="x" * 20_000))), StoreError
    )
    assert await write_alone(store, change("a", 1, done_row(1, "x"), ending=ending())) is None
    assert (await read(store, "a")).status == "completed"


async def test_verbs_in_the_same_batch_are_not_taken_along(store: SqliteStore) -> None:
    await write_all(store, owned_start("a"), new_start("b"), new_start("c"))
    bad, cancelled, claimed = await asyncio.gather(
        write(store, change("a", 1, done_row(1, "x", "x" * 20_000))),
        store.cancel("b", T0),
        store.claim("w1", [("c", "c", 0)], {}, T0),
    )
    assert isinstance(bad[0], StoreError)
    assert cancelled == {"b": "cancelled"}
    assert [work.execution.id for work in claimed] == ["c"]


async def test_a_verb_that_fails_does_not_take_the_others_along(store: SqliteStore) -> None:
    await write_all(store, new_start("a"), owned_start("b"))
    unknown, known, row = await asyncio.gather(
        store.cancel("nobody", T0),
        store.cancel("a", T0),
        write(store, change("b", 1, done_row(1, "x"))),
        return_exceptions=True,
    )
    assert isinstance(unknown, LookupError)
    assert known == {"a": "cancelled"}
    assert row == [None]
    assert (await read(store, "a")).status == "cancelled"
    assert await keys(store, "b") == ["x"]


async def test_a_verb_that_sqlite_refuses_is_told_and_takes_no_other_along(
    store: SqliteStore,
) -> None:
    await write_all(store, owned_start("a"), new_start("b"))
    futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
    todo = [
        (lambda c: verbs.block(c, "a", 1, "x" * 20_000), futures[0]),
        (lambda c: verbs.cancel(c, "b", T0, Lining()), futures[1]),
    ]
    settled = None
    with contextlib.suppress(RecursionError):
        settled = store._attempt([], todo)
    assert settled is not None
    by_future = {future: (value, error) for future, value, error in settled.verbs}
    assert isinstance(by_future[futures[0]][1], StoreError)
    assert by_future[futures[1]] == ({"b": "cancelled"}, None)
    assert (await read(store, "a")).blocked_reason is None


@pytest.mark.parametrize("value", ["\ud800", 1 << 70, object()])
async def test_a_value_that_sqlite_has_no_place_for_fails_alone(
    store: SqliteStore, value: Any
) -> None:
    results = await write(
        store, *(new_start(f"{n}", session_id=value if n == 1 else "s") for n in range(3))
    )
    assert isinstance(results[1], StoreError)
    assert [results[0], results[2]] == ["0", "2"]
    assert isinstance(await write_alone(store, new_start("3", session_id=value)), StoreError)
    assert await write_alone(store, new_start("4")) == "4"


async def test_a_verb_with_a_value_that_sqlite_has_no_place_for_fails_alone(
    store: SqliteStore,
) -> None:
    await write_all(store, new_start("b"))
    bad, good = await asyncio.gather(
        store.cancel("\ud800", T0), store.cancel("b", T0), return_exceptions=True
    )
    assert isinstance(bad, StoreError)
    assert good == {"b": "cancelled"}
