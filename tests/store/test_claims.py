"""Claims: what is free goes to one worker, oldest first; who owned it, who takes the queue."""

import pytest

from polos.core.model import Row, StateEntry, Status
from polos.store.protocol import Store
from tests.store.conftest import Opener
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
    worker,
    write,
    write_all,
)


async def waiting(store: Store, id: str, wake_at: int | None, worker_id: str = "w1") -> None:
    await write_all(store, owned_start(id, worker_id))
    assert await write(store, change(id, 1, status=Status.WAITING, wake_at=wake_at)) == ["waiting"]


async def test_a_claim_makes_the_worker_the_owner(store: Store) -> None:
    await write_all(store, new_start("a", state='{"n": 1}'))
    (key,) = await store.claimable("w1", ["wf"], True, T0, 10)
    assert tuple(key) == ("a", "a", 0)
    (work,) = await store.claim("w1", [key], {}, T0 + 1)
    found = await read(store, "a")
    assert (found.status, found.attempt, found.worker_id) == (Status.RUNNING, 1, "w1")
    assert found.started_at == T0 + 1
    assert found.wake_at is None
    assert work.execution == found
    assert (work.rows, work.inbox, work.resumed_from) == ([], [], None)
    assert work.states == [StateEntry(0, None, T0, '{"n": 1}')]


async def test_an_execution_is_claimed_once(store: Store, open_store: Opener) -> None:
    other = await open_store()
    await write_all(store, *(new_start(f"{n:02}") for n in range(20)))
    found = await store.claimable("w1", ["wf"], True, T0, 100)
    also = await other.claimable("w2", ["wf"], True, T0, 100)
    assert list(map(tuple, found)) == list(map(tuple, also))
    mine = await store.claim("w1", found[:12], {}, T0)
    theirs = await other.claim("w2", also, {}, T0)
    assert [w.execution.id for w in mine] == [f"{n:02}" for n in range(12)]
    assert [w.execution.id for w in theirs] == [f"{n:02}" for n in range(12, 20)]
    assert await store.claim("w1", found, {}, T0) == []


async def test_the_oldest_come_first_and_no_more_than_asked_for(store: Store) -> None:
    await write_all(store, *(new_start(id) for id in ("c", "a", "d", "b")))
    assert await claim_all(store, "w1", takes_queue=True, limit=3) == ["a", "b", "c"]
    assert await claim_all(store, "w1", takes_queue=True, limit=3) == ["d"]


async def test_only_the_named_workflows(store: Store) -> None:
    await write_all(store, new_start("a"), new_start("b", "other"))
    assert await claim_all(store, "w1", takes_queue=True) == ["a"]
    assert await store.claimable("w1", [], True, T0, 10) == []


async def test_queued_work_of_others_is_for_those_who_take_the_queue(store: Store) -> None:
    await write_all(store, new_start("a"))
    assert await claim_all(store, "w1", takes_queue=False) == []
    assert await claim_all(store, "w1", takes_queue=True) == ["a"]


async def test_nothing_before_its_moment(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await waiting(store, "a", T0 + 5)
    assert await claim_all(store, "w1", now=T0 + 4) == []
    assert await claim_all(store, "w1", now=T0 + 5) == ["a"]


async def test_what_waits_without_a_moment_is_not_claimable(store: Store) -> None:
    await waiting(store, "a", None)
    assert await claim_all(store, "w1", now=T0 + 10**12, takes_queue=True) == []


async def test_the_preferred_worker_has_a_head_start(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await store.register_worker(worker("w2", takes_queue=True))
    await waiting(store, "a", T0)
    assert await claim_all(store, "w2", now=T0, takes_queue=True) == []
    assert await claim_all(store, "w2", now=T0 + 5 * SECOND, takes_queue=False) == []
    assert await claim_all(store, "w2", now=T0 + 5 * SECOND, takes_queue=True) == ["a"]


async def test_what_a_dead_worker_left_is_for_everybody_who_has_the_workflow(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await store.register_worker(worker("w2"))
    await waiting(store, "a", T0)
    assert await claim_all(store, "w2") == []
    await store.stop_worker("w1", T0, crashed=True)
    assert await store.claimable("w2", ["other"], False, T0, 10) == []
    assert await claim_all(store, "w2") == ["a"]


async def test_a_running_execution_of_a_live_worker_is_not_claimable(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(1, "x"), status=Status.RUNNING))
    for worker_id in ("w1", "w2"):
        assert await claim_all(store, worker_id, now=T0 + 10**12, takes_queue=True) == []


async def test_a_claim_of_something_that_moved_on_gets_nothing(store: Store) -> None:
    await write_all(store, new_start("a"), new_start("b"), new_start("c"))
    found = await store.claimable("w1", ["wf"], True, T0, 10)
    await store.cancel("a", T0)
    await store.block("b", 0, "no")
    assert [w.execution.id for w in await store.claim("w1", found, {}, T0)] == ["c"]
    assert await store.claim("w1", [("x", "x", 0)], {}, T0) == []


async def test_a_claim_brings_journal_states_and_inbox(store: Store) -> None:
    await write_all(store, owned_start("a", state="{}"))
    opened = Row(2, "invoke_and_wait", "c", 1, info="[]", started_at=T0)
    await write_all(
        store,
        change(
            "a",
            1,
            done_row(1, "x"),
            opened,
            states=[StateEntry(1, "x", T0, "[1]")],
            starts=[child_start("child", "a", "a")],
            status=Status.WAITING,
        ),
    )
    await write_all(store, change("child", 1, root_id="a", ending=ending(parent_id="a")))
    (key,) = await store.claimable("w1", ["wf"], False, T0, 10)
    (work,) = await store.claim("w1", [key], {}, T0)
    assert [row.key for row in work.rows] == ["x", "c"]
    assert [entry.version for entry in work.states] == [0, 1]
    assert [item.ref for item in work.inbox] == ["child"]


async def test_a_parked_position_that_holds_brings_only_the_inbox(store: Store) -> None:
    await write_all(store, owned_start("a", state="{}"))
    await write_all(store, change("a", 1, done_row(7, "x"), status=Status.WAITING, wake_at=T0))
    (work,) = await store.claim("w1", [("a", "a", 1)], {"a": (1, 7)}, T0)
    assert (work.rows, work.states, work.resumed_from) == ([], [], 7)
    assert work.execution.attempt == 2


async def test_a_parked_position_that_does_not_hold_brings_all(store: Store) -> None:
    for id, position in (("a", (0, 7)), ("b", (1, 6)), ("c", (2, 7))):
        await write_all(store, owned_start(id))
        await write_all(store, change(id, 1, done_row(7, "x"), status=Status.WAITING, wake_at=T0))
        (work,) = await store.claim("w1", [(id, id, 1)], {id: position}, T0)
        assert work.resumed_from is None, position
        assert [row.key for row in work.rows] == ["x"]


async def test_started_at_is_that_of_the_first_run(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, status=Status.RUNNING, at=T0 + 1))
    await write_all(store, change("a", 1, status=Status.QUEUED, wake_at=0))
    await claim_all(store, "w1", now=T0 + 9)
    assert (await read(store, "a")).started_at == T0 + 1


async def test_next_wake_is_the_first_moment_of_the_named_workflows(store: Store) -> None:
    assert await store.next_wake("w1", ["wf"]) is None
    await waiting(store, "a", T0 + 9)
    await waiting(store, "b", T0 + 5)
    await waiting(store, "c", None)
    assert await store.next_wake("w1", ["wf"]) == T0 + 5
    assert await store.next_wake("w1", ["other"]) is None
    assert await store.next_wake("w1", []) is None


@pytest.mark.parametrize("wake_at", [T0 + 10**12, None])
async def test_a_worker_claims_what_it_has_parked_before_its_moment(
    store: Store, wake_at: int | None
) -> None:
    """Code beside a wait wants to go on."""
    await waiting(store, "a", wake_at)
    (work,) = await store.claim("w1", [("a", "a", 1)], {"a": (1, 0)}, T0)
    assert work.resumed_from == 0
    assert (await read(store, "a")).status is Status.RUNNING
