"""Cancelling: what it does in every status, to trees, and by force past the deadline."""

import json
from typing import Any

import pytest

from polos.core import failure, transitions
from polos.core.model import ClaimLost, Failure, Kind, Row, Status
from polos.errors import ExecutionNotFoundError
from polos.store.protocol import Store
from tests.store.records import (
    SECOND,
    T0,
    change,
    child_start,
    claim_all,
    done_row,
    ending,
    new_start,
    owned_start,
    read,
    write,
    write_all,
    write_alone,
)


async def test_one_that_never_ran_ends_at_once(store: Store) -> None:
    await write_all(store, new_start("a"))
    assert await store.cancel("a", T0 + 3) == {"a": "cancelled"}
    found = await read(store, "a")
    assert (found.status, found.completed_at) == (Status.CANCELLED, T0 + 3)
    assert found.cancel_requested_at == T0 + 3
    assert json.loads(found.error or "")["type"] == "ExecutionCancelledError"
    assert await claim_all(store, "w1", now=T0 + 10**12, takes_queue=True) == []


async def test_the_owner_of_a_running_one_is_told(store: Store) -> None:
    await write_all(store, owned_start("a", "w1"))
    await write_all(store, change("a", 1, status=Status.RUNNING))
    assert await store.to_cancel("w1") == []
    assert await store.cancel("a", T0 + 3) == {"a": "requested"}
    found = await read(store, "a")
    assert (found.status, found.cancel_requested_at) == (Status.RUNNING, T0 + 3)
    assert await store.to_cancel("w1") == ["a"]
    assert await store.to_cancel("w2") == []
    # It is still the owner's: it cleans up, and says when it was delivered.
    await write_all(store, change("a", 1, done_row(1, "cleanup"), cancel_delivered=True))
    assert await store.to_cancel("w1") == []
    await write_all(store, change("a", 1, ending=ending(Status.CANCELLED, "{}")))
    assert (await read(store, "a")).status is Status.CANCELLED


async def test_one_that_waits_is_queued_to_clean_up(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write(store, change("a", 1, status=Status.WAITING, wake_at=T0 + 10**12))
    assert await store.cancel("a", T0 + 3) == {"a": "queued"}
    found = await read(store, "a")
    assert (found.status, found.wake_at) == (Status.QUEUED, T0 + 3)
    assert await claim_all(store, "w1", now=T0 + 3) == ["a"]


async def test_one_that_goes_to_wait_with_a_request_open_is_queued(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.cancel("a", T0)
    assert await write(store, change("a", 1, status=Status.WAITING)) == ["queued"]


async def test_one_whose_cancellation_was_delivered_may_wait(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.cancel("a", T0)
    await write_all(store, change("a", 1, cancel_delivered=True))
    assert await write(store, change("a", 1, status=Status.WAITING)) == ["waiting"]


async def test_one_that_nobody_can_run_ends_at_once(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.block("a", 1, "no code")
    assert await store.cancel("a", T0) == {"a": "cancelled"}
    found = await read(store, "a")
    assert (found.status, found.blocked_reason) == (Status.CANCELLED, None)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_one_that_has_ended_stays_as_it_is(store: Store, status: Status) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, ending=ending(status, "7")))
    before = await read(store, "a")
    assert await store.cancel("a", T0 + 9) == {}
    assert await read(store, "a") == before


async def test_an_unknown_one_raises(store: Store) -> None:
    with pytest.raises(ExecutionNotFoundError, match="nobody"):
        await store.cancel("nobody", T0)


async def test_asking_twice_keeps_the_first_moment(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.cancel("a", T0 + 1)
    assert await store.cancel("a", T0 + 2) == {"a": "requested"}
    assert (await read(store, "a")).cancel_requested_at == T0 + 1


async def test_it_reaches_the_whole_tree_below_and_nothing_else(store: Store) -> None:
    await write_all(store, owned_start("p"), owned_start("stranger"))
    children = [child_start("c", "p", "p"), child_start("d", "p", "p")]
    await write_all(store, change("p", 1, starts=children))
    below = [child_start("g", "p", "c", worker_id="w2"), new_start("h", root_id="p", parent_id="c")]
    await write_all(store, change("c", 1, root_id="p", starts=below))
    await write(store, change("g", 1, root_id="p", status=Status.WAITING))
    assert await store.cancel("c", T0) == {"c": "requested", "g": "queued", "h": "cancelled"}
    for id in ("p", "d", "stranger"):
        assert (await read(store, id)).cancel_requested_at is None
    assert set(await store.cancel("p", T0)) == {"p", "c", "d", "g"}


async def test_a_child_cancelled_from_outside_wakes_its_parent(store: Store) -> None:
    await write_all(store, owned_start("p"))
    child = new_start("c", root_id="p", parent_id="p", awaited=True)
    await write_all(store, change("p", 1, starts=[child]))
    await write(store, change("p", 1, status=Status.WAITING))
    await store.cancel("c", T0 + 2)
    found = await read(store, "p")
    assert (found.status, found.cancel_requested_at) == (Status.QUEUED, None)
    (item,) = await store.inboxes([("p", "p")])
    assert (item.ref, item.status) == ("c", Status.CANCELLED)


async def test_past_the_deadline_it_is_ended_and_its_owner_fenced(store: Store) -> None:
    await write_all(store, owned_start("a"), owned_start("b"), owned_start("c"))
    await store.cancel("a", T0)
    await store.cancel("b", T0 + 50)
    assert await store.force_cancel(T0 + 50, T0 + 80) == ["a"]
    found = await read(store, "a")
    assert (found.status, found.completed_at) == (Status.CANCELLED, T0 + 80)
    assert isinstance(await write_alone(store, change("a", 1, done_row(1, "x"))), ClaimLost)
    assert isinstance(await write_alone(store, change("a", 1, ending=ending())), ClaimLost)
    assert (await read(store, "b")).status is Status.QUEUED
    assert await store.force_cancel(T0 + 50, T0 + 80) == []


async def test_who_ends_it_from_outside_names_what_was_to_be_undone_and_is_not(
    store: Store,
) -> None:
    def marked(seq: int, key: str, **options: Any) -> Row:
        return done_row(seq, key, info=transitions.TO_UNDO, **options)

    undone = done_row(8, "compensate.undone")
    undone.kind = Kind.COMPENSATE
    failed = done_row(9, "compensate.failed", ok=False, body=failure.dump(Failure("E", "no")))
    failed.kind = Kind.COMPENSATE
    rows = [
        done_row(1, "plain"),
        marked(2, "done"),
        marked(3, "broken", ok=False, body=failure.dump(Failure("E", "no"))),
        marked(4, "undone"),
        marked(5, "running", turn=None, ok=None, body=None, completed_at=None),
        marked(6, "failed"),
    ]
    await write_all(store, owned_start("a"), owned_start("t", run_timeout_seconds=1.0))
    for each in ("a", "t"):
        await write_all(store, change(each, 1, *rows, undone, failed))
    await store.cancel("a", T0)
    assert set(await store.force_cancel(T0 + 2 * SECOND, T0 + 3 * SECOND)) == {"a", "t"}
    for each, status in (("a", Status.CANCELLED), ("t", Status.FAILED)):
        found = await read(store, each)
        assert found.status is status
        assert failure.not_compensated(found.error) == ["done", "running", "failed"]


async def test_a_cancelled_execution_that_nobody_can_run_names_what_is_not_undone(
    store: Store,
) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(1, "x", info=transitions.TO_UNDO)))
    assert await store.block("a", 1, "nobody has its code")
    assert await store.cancel("a", T0) == {"a": "cancelled"}
    assert failure.not_compensated((await read(store, "a")).error) == ["x"]


async def test_the_deadline_counts_from_the_delivery(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.cancel("a", T0)
    await write_all(store, change("a", 1, cancel_delivered=True, at=T0 + 40))
    assert await store.force_cancel(T0 + 40, T0 + 80) == []
    assert await store.force_cancel(T0 + 41, T0 + 80) == ["a"]


async def test_force_wakes_the_parent(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, change("p", 1, starts=[child_start("c", "p", "p")]))
    await write(store, change("p", 1, status=Status.WAITING))
    await store.cancel("c", T0)
    await store.force_cancel(T0 + 1, T0 + 2)
    assert (await read(store, "p")).status is Status.QUEUED
    assert [item.ref for item in await store.inboxes([("p", "p")])] == ["c"]


async def test_an_ended_execution_leaves_no_inbox(store: Store) -> None:
    await write_all(store, owned_start("p"))
    await write_all(store, change("p", 1, starts=[child_start("c", "p", "p")]))
    await write_all(store, change("c", 1, root_id="p", ending=ending(parent_id="p")))
    await store.cancel("p", T0)
    await store.force_cancel(T0 + 1, T0 + 2)
    assert await store.inboxes([("p", "p")]) == []


async def test_children_that_came_too_late_are_asked_by_the_ending(store: Store) -> None:
    """The cancellation asked all there were; a child may have been started after that."""
    await write_all(store, owned_start("root"))
    await write_all(
        store, child_start("runs", "root", "root"), child_start("waits", "root", "root")
    )
    await write_all(
        store, child_start("inner", "root", "runs"), child_start("done", "root", "root")
    )
    await write(store, change("waits", 1, root_id="root", status=Status.WAITING))
    await write_all(store, change("done", 1, root_id="root", ending=ending()))
    end = ending(Status.CANCELLED, None, at=T0 + 5, with_children=True)
    await write_all(store, change("root", 1, ending=end))
    found = {id: await read(store, id) for id in ("runs", "waits", "inner", "done")}
    asked = {id: each.cancel_requested_at for id, each in found.items()}
    assert asked == {"runs": T0 + 5, "waits": T0 + 5, "inner": None, "done": None}
    assert (found["waits"].status, found["waits"].wake_at) == (Status.QUEUED, T0 + 5)
    assert found["done"].status is Status.COMPLETED


async def test_an_ending_of_another_kind_leaves_children_alone(store: Store) -> None:
    await write_all(store, owned_start("root"))
    await write_all(store, child_start("runs", "root", "root"))
    await write_all(store, change("root", 1, ending=ending()))
    assert (await read(store, "runs")).cancel_requested_at is None
