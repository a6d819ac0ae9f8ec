"""Changes: fenced by the attempt, all or nothing, one commit for each execution and batch."""

import pytest

from polos.core.model import ClaimLost, Row, StateEntry, Status
from polos.errors import StoreError
from polos.store.protocol import Store
from tests.store.conftest import Opener
from tests.store.records import (
    T0,
    Told,
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


def full_row() -> Row:
    return Row(
        seq=1,
        kind="run",
        key="k#2",
        asked=3,
        call="f:0",
        turn=2,
        ok=False,
        body='{"type":"E"}',
        type="t",
        pinned=True,
        change='[["set"]]',
        state_version=4,
        due_at=5,
        info="i",
        attempts=6,
        started_at=7,
        completed_at=8,
    )


@pytest.mark.parametrize("alone", [True, False])
async def test_a_row_comes_back_as_it_was_written(store: Store, alone: bool) -> None:
    await write_all(store, owned_start("a"), owned_start("b"))
    if alone:
        assert await write_alone(store, change("a", 1, full_row())) is None
    else:
        assert await write(store, change("a", 1, full_row()), change("b", 1)) == [None, None]
    assert await store.steps("a", "a") == [full_row()]


async def test_a_row_may_open_and_close_in_one_change(store: Store) -> None:
    """What was known when it opened stays, as if two changes had brought it."""
    await write_all(store, owned_start("a"))
    opened = Row(1, "invoke_and_wait", "k", 0, call="f:0", due_at=9, info="[1]", started_at=T0)
    closed = Row(1, "invoke_and_wait", "k", 0, turn=1, ok=True, body="2", started_at=T0 + 5)
    await write_all(store, change("a", 1, opened, done_row(2, "b", turn=1), closed))
    first, second = await store.steps("a", "a")
    assert (first.call, first.info, first.started_at) == ("f:0", "[1]", T0)
    assert (first.turn, first.ok, first.body, first.due_at) == (1, True, "2", None)
    assert second == done_row(2, "b", turn=1)


async def test_rows_are_read_by_seq(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(3, "c"), done_row(1, "a")))
    await write_all(store, change("a", 1, done_row(10, "j"), done_row(2, "b")))
    assert await keys(store, "a") == ["a", "b", "c", "j"]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("attempt", [0, 2])
async def test_another_attempt_writes_nothing(store: Store, attempt: int, alone: bool) -> None:
    await write_all(store, owned_start("a"), owned_start("b"))
    stale = change("a", attempt, done_row(1, "x"))
    if alone:
        result = await write_alone(store, stale)
    else:
        stale.states = [StateEntry(1, "x", T0, "{}")]
        stale.starts = [new_start("child", root_id="a")]
        stale.ending = ending()
        result, other = await write(store, stale, change("b", 1, done_row(1, "y")))
        assert other is None
        assert await keys(store, "b") == ["y"]
        assert await store.execution("child") is None
        assert await store.states("a", "a") == []
    assert isinstance(result, ClaimLost)
    assert await keys(store, "a") == []
    assert (await read(store, "a")).status is Status.QUEUED


@pytest.mark.parametrize("alone", [True, False])
async def test_an_unknown_execution_is_a_lost_claim(store: Store, alone: bool) -> None:
    lost = change("nobody", 1, done_row(1, "x"))
    result = await (write_alone(store, lost) if alone else one_of(store, lost))
    assert isinstance(result, ClaimLost)
    assert await keys(store, "nobody") == []


async def one_of(store: Store, command: Told) -> object:
    await write_all(store, owned_start("other"))
    return (await write(store, command, change("other", 1, done_row(1, "y"))))[0]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_an_ended_execution_takes_nothing_more(store: Store, status: Status) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(1, "x"), ending=ending(status, "0")))
    late = await write_alone(store, change("a", 1, done_row(2, "late")))
    later = await write(store, change("a", 1, done_row(2, "late")), change("a", 1, ending=ending()))
    assert all(isinstance(each, ClaimLost) for each in (late, *later))
    found = await read(store, "a")
    assert found.status is status
    assert (found.result if status is Status.COMPLETED else found.error) == "0"
    assert await keys(store, "a") == ["x"]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_waiting_execution_takes_nothing_before_it_is_claimed(
    store: Store, alone: bool
) -> None:
    await write_all(store, owned_start("a"))
    assert await write(store, change("a", 1, status=Status.WAITING)) == ["waiting"]
    late = change("a", 1, done_row(1, "late"))
    result = await (write_alone(store, late) if alone else one_of(store, late))
    assert isinstance(result, ClaimLost)
    assert await keys(store, "a") == []


async def test_a_change_is_written_as_a_whole(store: Store) -> None:
    await write_all(store, owned_start("a", state='{"n": 0}'))
    child = new_start("child", root_id="a", parent_id="a", parent_key="x", state='{"c": 1}')
    await write_all(
        store,
        change(
            "a",
            1,
            done_row(1, "x"),
            done_row(2, "y", turn=1),
            states=[StateEntry(1, "x", T0, "[1]"), StateEntry(2, "y", T0, "[2]")],
            starts=[child],
            status=Status.RUNNING,
            at=T0 + 5,
        ),
    )
    assert await keys(store, "a") == ["x", "y"]
    assert [s.body for s in await store.states("a", "a")] == ['{"n": 0}', "[1]", "[2]"]
    assert (await read(store, "child")).parent_key == "x"
    assert [s.body for s in await store.states("a", "child")] == ['{"c": 1}']
    found = await read(store, "a")
    assert (found.status, found.started_at) == (Status.RUNNING, T0 + 5)


async def test_a_change_that_cannot_be_written_leaves_nothing_and_takes_nobody_along(
    store: Store,
) -> None:
    ids = [f"{n}" for n in range(9)]
    await write_all(store, *(owned_start(id, state="{}") for id in ids))
    commands = [
        change(id, 1, done_row(1, "x"), states=[StateEntry(1, "x", T0, "[1]")]) for id in ids
    ]
    commands[4].states[0].version = 0  # taken by the start
    commands[4].starts = [new_start("child", root_id="4")]
    commands[4].ending = ending()
    results = await write(store, *commands)
    assert isinstance(results[4], StoreError)
    assert results[:4] + results[5:] == [None] * 8
    assert await keys(store, "4") == []
    assert len(await store.states("4", "4")) == 1
    assert await store.execution("child") is None
    assert (await read(store, "4")).status is Status.QUEUED
    for id in ids[:4] + ids[5:]:
        assert await keys(store, id) == ["x"]
        assert len(await store.states(id, id)) == 2


async def test_an_offender_alone_leaves_the_store_in_order(store: Store) -> None:
    await write_all(store, owned_start("a", state="{}"))
    bad = change("a", 1, done_row(1, "x"), states=[StateEntry(0, "x", T0, "[1]")])
    assert isinstance(await write_alone(store, bad), StoreError)
    assert await keys(store, "a") == []
    assert await write_alone(store, change("a", 1, done_row(1, "y"))) is None
    assert await keys(store, "a") == ["y"]


async def test_a_row_that_was_open_is_closed_by_a_second_write(store: Store) -> None:
    await write_all(store, owned_start("a"))
    opened = Row(1, "wait_for", "w", 0, call="c", due_at=9, info="i", started_at=5)
    await write_all(store, change("a", 1, opened))
    assert (await store.steps("a", "a")) == [opened]
    closed = Row(
        1,
        "wait_for",
        "w",
        0,
        turn=1,
        ok=True,
        body="null",
        pinned=True,
        state_version=2,
        attempts=3,
        started_at=6,
        completed_at=7,
    )
    await write_all(store, change("a", 1, closed))
    (row,) = await store.steps("a", "a")
    assert (row.turn, row.ok, row.body, row.pinned) == (1, True, "null", True)
    assert (row.state_version, row.attempts, row.completed_at) == (2, 3, 7)
    # What was known when it opened stays.
    assert (row.kind, row.key, row.asked, row.call) == ("wait_for", "w", 0, "c")
    assert (row.info, row.started_at) == ("i", 5)


async def test_a_row_opens_and_closes_in_one_change(store: Store) -> None:
    await write_all(store, owned_start("a"), owned_start("b"))
    opened = Row(1, "invoke", "w", 0, call="c", due_at=9, info="i", started_at=5)
    closed = Row(1, "other", "x", 7, turn=1, ok=True, body='"v"', started_at=6, completed_at=8)
    beside = done_row(2, "y")
    await write_all(store, change("a", 1, opened, beside, closed), change("b", 1, opened))
    kept = Row(1, "invoke", "w", 0, "c", 1, True, '"v"', info="i", started_at=5, completed_at=8)
    assert await store.steps("a", "a") == [kept, beside]
    assert await store.steps("b", "b") == [opened]


async def test_a_lone_row_closes_as_one_in_a_batch_does(store: Store) -> None:
    await write_all(store, owned_start("a"), owned_start("b"))
    for id in ("a", "b"):
        await write_all(store, change(id, 1, Row(1, "run", "k", 0, started_at=5)))
    closed = done_row(1, "k", '"v"', attempts=2)
    await write_alone(store, change("a", 1, closed))
    await write(store, change("b", 1, closed), change("a", 1))
    assert await store.steps("a", "a") == await store.steps("b", "b")


async def test_forgotten_rows_go(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(1, "x"), done_row(2, "y"), done_row(3, "z")))
    await write_all(store, change("a", 1, forget=[1, 3], status=Status.QUEUED, retry_count=1))
    assert await keys(store, "a") == ["y"]
    assert (await read(store, "a")).retry_count == 1


async def test_an_execution_that_is_handed_back_is_free_and_fenced(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, status=Status.QUEUED, wake_at=T0 + 50))
    found = await read(store, "a")
    assert (found.status, found.attempt, found.wake_at) == (Status.QUEUED, 2, T0 + 50)
    assert isinstance(await write_alone(store, change("a", 1, done_row(1, "x"))), ClaimLost)


async def test_cancel_delivered_is_noted(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.cancel("a", T0)
    await write_all(store, change("a", 1, done_row(1, "c"), cancel_delivered=True, at=T0 + 3))
    found = await read(store, "a")
    assert (found.cancel_requested_at, found.cancel_delivered_at) == (T0, T0 + 3)


async def test_the_seal_is_called_before_the_batch_is_written(store: Store) -> None:
    await write_all(store, owned_start("a"))
    late = change("a", 1)
    late.on_seal = lambda: late.rows.append(done_row(1, "added by the seal"))
    assert await write_alone(store, late) is None
    assert await keys(store, "a") == ["added by the seal"]


async def test_commits_of_one_execution_keep_their_order(store: Store) -> None:
    await write_all(store, owned_start("a"))
    order: list[int] = []
    for n in range(1, 51):
        each = change("a", 1, done_row(n, f"k{n}"))
        each.on_done = lambda _, n=n: order.append(n)
        store.submit(each)
    await write_all(store, change("a", 1, done_row(51, "last")))
    assert order == list(range(1, 51))
    assert len(await keys(store, "a")) == 51


async def test_what_was_submitted_is_written_before_the_store_closes(
    store: Store, open_store: Opener
) -> None:
    await write_all(store, owned_start("a"))
    store.submit(change("a", 1, done_row(1, "x")))
    await store.close()
    assert await keys(await open_store(), "a") == ["x"]
