"""Removal of old trees: what is due, what goes with it, and that nothing else goes."""

import asyncio
import json
from typing import Any

import pytest

from polos.core.model import Row, StateEntry, Status
from polos.core.transitions import REMOVING
from polos.errors import ConflictError, ExecutionNotFoundError, StoreReadOnlyError
from polos.store.protocol import Store
from tests.store.conftest import Opener
from tests.store.records import (
    SECOND,
    T0,
    change,
    child_start,
    done_row,
    ending,
    new_start,
    owned_start,
    read,
    worker,
    write_all,
)


async def finish(store: Store, id: str, at: int = T0, **options: Any) -> None:
    """Write an execution that ended at a moment, with two rows and two states."""
    status: Status = options.pop("status", Status.COMPLETED)
    await write_all(store, owned_start(id, state="{}", **options))
    rows = [done_row(1, "x"), done_row(2, "y")]
    states = [StateEntry(1, "x", T0, "[]")]
    await write_all(store, change(id, 1, *rows, states=states, ending=ending(status, at=at)))


async def due(store: Store, before: int, workflow_id: str = "wf", limit: int = 100) -> list[str]:
    return [root for _, root in await store.due(workflow_id, before, limit=limit)]


async def all_ids(store: Store) -> set[str]:
    return {each.id for each in await store.listing({}, -1)}


async def test_what_ended_before_a_moment_is_due_the_oldest_first(store: Store) -> None:
    for n in (3, 1, 2):
        await finish(store, f"e{n}", T0 + n)
    assert await due(store, T0 + 3) == ["e1", "e2"]
    assert await due(store, T0 + 1) == []
    assert await due(store, T0 + 99) == ["e1", "e2", "e3"]
    assert await due(store, T0 + 99, limit=2) == ["e1", "e2"]
    assert await due(store, T0 + 99, "other") == []


async def test_pages_go_on_behind_the_last(store: Store) -> None:
    for n in range(5):
        await finish(store, f"e{n}", T0 + n // 2)  # two of a moment
    seen: list[str] = []
    after = None
    while page := await store.due("wf", T0 + 99, after=after, limit=2):
        seen += [root for _, root in page]
        after = page[-1]
    assert seen == ["e0", "e1", "e2", "e3", "e4"]


async def test_statuses_choose(store: Store) -> None:
    for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
        await finish(store, status, status=status)
    found = await store.due("wf", T0 + 1, statuses=["failed", "cancelled"], limit=9)
    assert [root for _, root in found] == ["cancelled", "failed"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_everything_of_an_execution_goes(store: Store, status: Status) -> None:
    await finish(store, "old", status=status, idempotency_key="key")
    await finish(store, "young", T0 + 10, idempotency_key="other")
    done = await store.prune(["old", "young"], T0 + 5)
    assert (done.trees, done.executions, done.rows, done.left) == (1, 1, 5, [])
    assert await all_ids(store) == {"young"}
    assert await store.steps("old", "old") == []
    assert await store.states("old", "old") == []
    assert len(await store.steps("young", "young")) == 2
    assert len(await store.states("young", "young")) == 2
    # Its key is free again: the next start with it is a new execution.
    await write_all(store, new_start("again", idempotency_key="key"))
    assert await all_ids(store) == {"young", "again"}


async def tree(store: Store, root: str, children: int, *, ended: bool = True) -> None:
    """Write a root with children, of which the last is open unless all have ended."""
    starts = [child_start(f"{root}c{n}", root, root) for n in range(children)]
    await write_all(store, owned_start(root))
    await write_all(store, change(root, 1, done_row(1, "x"), starts=starts))
    for n in range(children):
        if ended or n < children - 1:
            id = f"{root}c{n}"
            last = change(id, 1, done_row(1, "c"), root_id=root, ending=ending(parent_id=root))
            await write_all(store, last)
    await write_all(store, change(root, 1, ending=ending()))


async def test_a_tree_goes_as_a_whole(store: Store) -> None:
    await tree(store, "r", 3)
    assert await due(store, T0 + 1) == ["r"]  # no child is due for itself
    weighed = await store.weigh(["r"])
    done = await store.prune(["r"], T0 + 1)
    assert (done.trees, done.executions, done.rows) == (1, 4, 8)
    assert (weighed.trees, weighed.executions, weighed.rows) == (1, 4, 8)
    assert await all_ids(store) == set()
    assert await store.steps("r", "rc1") == []


async def test_a_tree_with_something_open_stays(store: Store) -> None:
    await tree(store, "r", 3, ended=False)
    assert await due(store, T0 + 1) == []
    assert (await store.prune(["r"], T0 + 1)).rows == 0
    assert len(await all_ids(store)) == 4
    await write_all(store, change("rc2", 1, root_id="r", ending=ending()))
    assert await due(store, T0 + 1) == ["r"]


async def test_children_never_go_before_their_root(store: Store) -> None:
    starts = [child_start("rc", "r", "r")]
    await write_all(store, owned_start("r"))
    await write_all(store, change("r", 1, done_row(1, "x"), starts=starts))
    await write_all(store, change("rc", 1, root_id="r", ending=ending()))
    assert await due(store, T0 + 99 * SECOND) == []
    assert (await store.prune(["r", "rc"], T0 + 99 * SECOND)).rows == 0
    # The age counts from the end of the root.
    await write_all(store, change("r", 1, ending=ending(at=T0 + 50)))
    assert await due(store, T0 + 50) == []
    assert await due(store, T0 + 51) == ["r"]


async def test_what_was_retried_since_it_was_found_stays(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(1, "x")))
    failed = '{"type":"E","message":"m"}'
    await write_all(store, change("a", 1, ending=ending(Status.FAILED, failed)))
    assert await due(store, T0 + 1) == ["a"]
    await store.retry("a", T0)
    assert (await store.prune(["a"], T0 + 1)).rows == 0
    assert (await read(store, "a")).status is Status.QUEUED


async def test_two_that_remove_the_same_do_not_harm(store: Store, open_store: Opener) -> None:
    other = await open_store()
    for n in range(4):
        await finish(store, f"e{n}")
    mine, theirs = await due(store, T0 + 1), await due(other, T0 + 1)
    one = await store.prune(mine, T0 + 1)
    two = await other.prune(theirs, T0 + 1)
    assert (one.trees, two.trees) == (4, 0)
    assert await all_ids(other) == set()


async def test_a_retry_of_a_child_and_a_removal_do_not_cross(
    store: Store, open_store: Opener
) -> None:
    other = await open_store()
    failed = ending(Status.FAILED, '{"type":"E","message":"m"}')
    for n in range(15):
        root, child = f"r{n}", f"c{n}"
        await write_all(store, owned_start(root))
        await write_all(store, change(root, 1, starts=[child_start(child, root, root)]))
        await write_all(store, change(child, 1, root_id=root, ending=failed))
        await write_all(store, change(root, 1, ending=ending()))
        _, retried = await asyncio.gather(
            store.prune([root], T0 + 1), other.retry(child, T0), return_exceptions=True
        )
        left = await all_ids(store) & {root, child}
        if isinstance(retried, ExecutionNotFoundError):
            assert left == set()
        else:
            assert (retried, left) == (None, {root, child})


async def remove(store: Store, roots: list[str], rows_max: int) -> list[int]:
    """Prune until nothing is left; returns the rows of each transaction."""
    rows: list[int] = []
    while roots:
        done = await store.prune(roots, T0 + 1, rows_max=rows_max)
        rows.append(done.rows)
        roots = done.left
    return rows


async def test_a_transaction_is_short_and_says_what_is_left(store: Store) -> None:
    for n in range(5):
        await finish(store, f"e{n}")
    done = await store.prune([f"e{n}" for n in range(5)], T0 + 1, rows_max=9)
    assert (done.trees, done.rows, done.left) == (2, 10, ["e2", "e3", "e4"])
    assert await remove(store, done.left, 9) == [10, 5]
    assert await all_ids(store) == set()


async def test_a_large_tree_goes_in_parts_its_root_last(store: Store) -> None:
    await tree(store, "r", 8)
    await finish(store, "z")
    done = await store.prune(["r", "z"], T0 + 1, rows_max=30)
    assert (done.trees, done.executions, done.rows, done.left) == (0, 3, 6, ["r", "z"])
    root = await read(store, "r")
    assert (root.status, root.blocked_reason) == (Status.COMPLETED, REMOVING)
    assert await due(store, T0 + 1) == ["r", "z"]  # found again, should this process die now
    assert await remove(store, done.left, 30) == [6, 11]
    assert await all_ids(store) == set()


async def test_what_is_being_removed_cannot_be_retried(store: Store) -> None:
    starts = [child_start(f"c{n}", "r", "r") for n in range(3)]
    await write_all(store, owned_start("r"))
    await write_all(store, change("r", 1, done_row(1, "x"), starts=starts))
    failed = ending(Status.FAILED, '{"type":"E","message":"m"}')
    for n in range(3):
        await write_all(store, change(f"c{n}", 1, root_id="r", ending=failed))
    await write_all(store, change("r", 1, ending=failed))
    await store.prune(["r"], T0 + 1, rows_max=1)
    with pytest.raises(ConflictError, match="being removed"):
        await store.retry("r", T0)
    # A child that is still there may: its tree stays until it has ended.
    await store.retry("c0", T0)
    assert (await store.prune(["r"], T0 + 1)).rows == 0
    assert (await read(store, "c0")).status is Status.QUEUED


async def test_the_workflows_of_finished_roots(store: Store) -> None:
    assert await store.finished_workflows() == []
    for n, workflow_id in enumerate(["b", "a", "b", "c"]):
        await write_all(store, owned_start(f"{n}", workflow_id=workflow_id))
        if workflow_id != "c":
            await write_all(store, change(f"{n}", 1, ending=ending()))
    assert await store.finished_workflows() == ["a", "b"]


async def test_nothing_open_is_ever_due(store: Store) -> None:
    await write_all(store, new_start("queued"), owned_start("running"), owned_start("waiting"))
    await write_all(store, change("running", 1, done_row(1, "x"), status=Status.RUNNING))
    await write_all(store, change("waiting", 1, Row(1, "wait_for", "w", 0), status=Status.WAITING))
    assert await due(store, T0 + 10**15) == []
    assert (await store.prune(["queued", "running", "waiting"], T0 + 10**15)).rows == 0
    assert len(await all_ids(store)) == 3


async def test_workers_are_seen_with_what_they_own(store: Store) -> None:
    await store.liveness.hold("w1")
    await store.register_worker(worker("w1", "one", "two", takes_queue=True))
    await store.register_worker(worker("w2"))
    await store.register_worker(worker("w3"))
    await store.stop_worker("w3", T0 + 5, crashed=False)
    await write_all(store, owned_start("a"), owned_start("b"), owned_start("c", "w2"))
    await write_all(store, change("a", 1, done_row(1, "x"), status=Status.RUNNING))
    await write_all(store, owned_start("d"))
    await write_all(store, change("d", 1, ending=ending()))
    await write_all(store, owned_start("e"))
    await write_all(store, change("e", 1, status=Status.WAITING))
    found = {each.record.id: each for each in await store.workers(T0 + 5)}
    assert sorted(found) == ["w1", "w2"]
    one, two = found["w1"], found["w2"]
    assert (one.held, one.running, one.queued) == (True, 1, 1)
    assert json.loads(one.record.workflows) == ["one", "two"]
    assert one.record.takes_queue
    assert (two.held, two.running, two.queued) == (False, 0, 1)
    again = await store.workers(T0 + 4)
    assert {each.record.id: each.record.stopped_at for each in again}["w3"] == T0 + 5
    await store.liveness.drop()
    assert not (await store.workers(T0))[-1].held


async def test_stats_count_executions_rows_and_bytes(store: Store) -> None:
    empty = await store.stats()
    assert (empty.executions, empty.oldest, empty.newest) == ({}, None, None)
    await finish(store, "1")
    await finish(store, "2", status=Status.FAILED, created_at=T0 + 7)
    await write_all(store, new_start("3", "other", created_at=T0 + 9))
    found = await store.stats()
    assert found.executions == {"other": {"queued": 1}, "wf": {"completed": 1, "failed": 1}}
    assert (found.oldest, found.newest) == (T0, T0 + 9)
    rows = {table.name: table.rows for table in found.tables}
    expected = {"execution": 3, "inbox": 0, "state": 4, "step": 4, "worker": 0}
    assert {name: rows[name] for name in expected} == expected
    assert all(table.bytes > 0 for table in found.tables)
    assert found.sizes["database"] > 0
    assert found.schema >= 1


async def test_vacuum_gives_back_what_was_removed(store: Store) -> None:
    for n in range(20):
        await write_all(store, owned_start(f"{n}"))
        body = json.dumps("x" * 20_000)
        await write_all(store, change(f"{n}", 1, done_row(1, "x", body), ending=ending()))
    await store.prune([f"{n}" for n in range(19)], T0 + 1)
    free = (await store.stats()).sizes.get("free")
    before, after = await store.vacuum()
    if free is not None:  # PostgreSQL keeps the space, to be used again
        assert free > 300_000
        assert before - after >= 300_000
        assert (await store.stats()).sizes["free"] < free
    assert min(before, after) > 0
    assert len(await store.steps("19", "19")) == 1


async def test_a_read_only_store_removes_nothing(
    store: Store, request: pytest.FixtureRequest
) -> None:
    if "memory" in request.node.name:
        return  # always writable
    store.read_only = True
    with pytest.raises(StoreReadOnlyError):
        await store.prune(["a"], T0)
    with pytest.raises(StoreReadOnlyError):
        await store.vacuum()
