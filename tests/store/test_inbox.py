"""The inbox: a child's end reaches its parent, whatever the parent is doing just then."""

import pytest

from polos.core.model import Row, Status
from polos.store.protocol import Store
from tests.store.records import (
    T0,
    Told,
    change,
    child_start,
    done_row,
    ending,
    owned_start,
    read,
    write,
    write_all,
)


def joining(*children: str) -> Told:
    """Return the change of a parent that starts children and is going to wait for them."""
    opened = Row(1, "invoke_and_wait", "join", 0, started_at=T0)
    return change("p", 1, opened, starts=[child_start(id, "p", "p") for id in children])


def ended(child: str, status: Status = Status.COMPLETED, at: int = T0) -> Told:
    return change(child, 1, root_id="p", ending=ending(status, '{"m":1}', parent_id="p", at=at))


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_the_end_of_a_child_wakes_its_parent(store: Store, status: Status) -> None:
    await write_all(store, owned_start("p"))
    parent = joining("c")
    parent.status, parent.wake_at = Status.WAITING, T0 + 10**9
    assert await write(store, parent) == ["waiting"]
    await write_all(store, ended("c", status, T0 + 7))
    found = await read(store, "p")
    assert (found.status, found.wake_at) == (Status.QUEUED, T0 + 7)
    (item,) = await store.inboxes([("p", "p")])
    assert (item.id, item.execution_id, item.kind, item.ref) == ("c", "p", "child", "c")
    assert (item.status, item.body, item.type) == (status, '{"m":1}', None)


async def test_an_end_while_the_parent_runs_stays_in_its_inbox(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    await write_all(store, ended("c"))
    assert (await read(store, "p")).wake_at is None
    assert [item.ref for item in await store.inboxes([("p", "p")])] == ["c"]


async def test_a_parent_that_goes_to_wait_behind_an_end_is_queued_at_once(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    await write_all(store, ended("c"))
    waits = change("p", 1, status=Status.WAITING, wake_at=T0 + 10**9, at=T0 + 3)
    assert await write(store, waits) == ["queued"]
    found = await read(store, "p")
    assert (found.status, found.wake_at) == (Status.QUEUED, T0 + 3)
    assert len(await store.claimable("w1", ["wf"], False, T0 + 3, 10)) == 1


async def test_an_end_in_the_same_batch_is_not_lost(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    for commands in ([change("p", 1, status=Status.WAITING), ended("c")],):
        await write(store, *commands)
    assert (await read(store, "p")).status is Status.QUEUED
    assert len(await store.inboxes([("p", "p")])) == 1


async def test_items_that_the_parent_keeps_for_later_do_not_wake_it(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c", "d"))
    await write_all(store, ended("c"))
    assert await write(store, change("p", 1, status=Status.WAITING, seen=1)) == ["waiting"]
    await write_all(store, ended("d"))
    assert (await read(store, "p")).status is Status.QUEUED


async def test_an_item_is_consumed_with_the_row_that_it_closes(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c", "d"))
    await write_all(store, ended("c"), ended("d"))
    closed = done_row(1, "join")
    await write_all(store, change("p", 1, closed, consumed=["c"]))
    assert [item.ref for item in await store.inboxes([("p", "p")])] == ["d"]
    assert [row.ok for row in await store.steps("p", "p")] == [True]


async def test_a_refused_change_consumes_nothing(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    await write_all(store, ended("c"))
    await write(store, change("p", 9, done_row(1, "join"), consumed=["c"]))
    assert len(await store.inboxes([("p", "p")])) == 1


async def test_an_end_that_nobody_waits_for_tells_nobody(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    await write_all(store, change("c", 1, root_id="p", ending=ending()))
    assert await store.inboxes([("p", "p")]) == []


async def test_an_ended_parent_gets_nothing_and_leaves_nothing(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c", "d"))
    await write_all(store, ended("c"))
    await write_all(store, change("p", 1, ending=ending()))
    await write_all(store, ended("d"))
    assert await store.inboxes([("p", "p")]) == []
    assert (await read(store, "p")).status is Status.COMPLETED


async def test_a_blocked_parent_is_told_but_not_woken(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    assert await store.block("p", 1, "no code")
    await write_all(store, ended("c"))
    found = await read(store, "p")
    assert (found.status, found.blocked_reason) == (Status.WAITING, "no code")
    assert len(await store.inboxes([("p", "p")])) == 1


async def test_inboxes_of_several_executions_oldest_item_first(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c", "d", "e"))
    for n, child in enumerate(("e", "c", "d")):
        await write_all(store, ended(child, at=T0 + n))
    assert [item.ref for item in await store.inboxes([("x", "x"), ("p", "p")])] == ["e", "c", "d"]


async def test_a_child_of_a_child_tells_its_own_parent(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, joining("c"))
    await write_all(store, change("c", 1, root_id="p", starts=[child_start("g", "p", "c")]))
    await write_all(store, change("g", 1, root_id="p", ending=ending(parent_id="c")))
    assert await store.inboxes([("p", "p")]) == []
    assert [item.ref for item in await store.inboxes([("p", "c")])] == ["g"]
