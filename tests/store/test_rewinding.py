"""Going back: a start with a journal, resets and what they cut off, past versions of a state."""

import pytest

from polos.core import delta
from polos.core.model import ClaimLost, Kind, Row, StateEntry, Status, Wait
from polos.errors import ConflictError, ExecutionNotFoundError, StepNotFoundError
from polos.store.protocol import VERSION_MAX, Store
from tests.store.records import (
    SECOND,
    T0,
    change,
    child_start,
    claim_all,
    done_row,
    ending,
    keys,
    new_start,
    owned_start,
    read,
    worker,
    write,
    write_all,
)

STATES = [
    StateEntry(1, "one", T0 + 1, '{"n": 1}', attempt=1, origin='{"worker_id": "w1"}'),
    StateEntry(2, "two", T0 + 2, '[["n",0,0,"2"]]', attempt=1),
    StateEntry(3, "three", T0 + 3, '[["n",0,0,"3"]]', '[["n",0,0,"3"]]', attempt=1),
]


async def run_three(store: Store, id: str = "a") -> None:
    """Record three steps, each with a state of its own."""
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start(id, state='{"n": 0}', run_timeout_seconds=60.0))
    rows = [done_row(n, key, state_version=n) for n, key in enumerate(("one", "two", "three"), 1)]
    await write_all(store, change(id, 1, *rows, states=STATES, status=Status.RUNNING))


async def finish(store: Store, id: str = "a", status: Status = Status.COMPLETED) -> None:
    await run_three(store, id)
    await write_all(store, change(id, 1, ending=ending(status)))


async def state_of(store: Store, id: str = "a", version: int = VERSION_MAX) -> str:
    entries = await store.states_up_to(id, id, version)
    return delta.document(delta.replay(e.jump or e.body for e in entries))


async def test_a_start_with_a_journal_is_claimed_with_it(store: Store) -> None:
    rows = [done_row(1, "one", state_version=1)]
    states = [StateEntry(0, None, T0, '{"n": 0}'), STATES[0]]
    start = new_start(
        "f", forked_from='{"execution_id": "a", "step_key": "one"}', tags='{"x": "y"}'
    )
    await store.start_with(start, rows, states)
    found = await read(store, "f")
    assert (found.status, found.attempt, found.wake_at) == (Status.QUEUED, 0, T0)
    assert (found.forked_from, found.tags) == (start.forked_from, start.tags)
    assert await store.steps("f", "f") == rows
    assert await store.states("f", "f") == states
    await store.register_worker(worker("w1", takes_queue=True))
    assert await claim_all(store, "w1", takes_queue=True) == ["f"]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_what_has_ended_goes_on_behind_the_step(store: Store, status: Status) -> None:
    await finish(store, status=status)
    done = await store.reset("a", "one", T0 + 9 * SECOND, dry_run=False)
    assert ([r.key for r in done.cut.gone], done.number, done.children) == (["two", "three"], 1, {})
    found = await read(store, "a")
    assert (found.status, found.attempt, found.wake_at) == (Status.QUEUED, 2, 0)
    assert (found.result, found.error, found.completed_at) == (None, None, None)
    assert found.run_timeout_seconds == 69.0
    assert await keys(store, "a") == ["one"]
    assert await state_of(store) == '{"n":1}'
    assert [e.version for e in await store.states("a", "a")] == [0, 1, 2, 3, 4]
    assert await claim_all(store, "w1", now=T0 + 9 * SECOND) == ["a"]


async def test_what_was_cut_off_is_kept(store: Store) -> None:
    await finish(store)
    before = await store.steps("a", "a")
    await store.reset("a", "two", T0 + 5, dry_run=False)
    await store.reset("a", "one", T0 + 7, dry_run=False)
    kept = await store.cut_steps("a", "a")
    assert [(number, at, row.key) for number, at, row in kept] == [
        (1, T0 + 5, "three"),
        (2, T0 + 7, "two"),
    ]
    assert kept[0][2] == before[2]
    assert await state_of(store, version=3) == '{"n":3}'


async def test_a_dry_run_changes_nothing(store: Store) -> None:
    await finish(store)
    before = (await read(store, "a"), await store.steps("a", "a"), await store.states("a", "a"))
    done = await store.reset("a", "one", T0, dry_run=True)
    assert [r.key for r in done.cut.gone] == ["two", "three"]
    after = (await read(store, "a"), await store.steps("a", "a"), await store.states("a", "a"))
    assert before == after
    assert await store.cut_steps("a", "a") == []


async def test_what_runs_is_left_alone(store: Store) -> None:
    await run_three(store)
    await write_all(store, owned_start("b"))
    for id in "ab":
        with pytest.raises(ConflictError, match="running"):
            await store.reset(id, "one", T0, dry_run=False)
    assert await keys(store, "a") == ["one", "two", "three"]


async def test_unknown_and_open_steps_are_refused(store: Store) -> None:
    await finish(store)
    with pytest.raises(StepNotFoundError, match="four"):
        await store.reset("a", "four", T0, dry_run=False)
    with pytest.raises(ExecutionNotFoundError):
        await store.reset("nobody", "one", T0, dry_run=False)
    await write_all(store, owned_start("b"))
    opened = Row(2, Kind.WAIT_FOR, "nap", 1, started_at=T0)
    waiting = change("b", 1, done_row(1, "one"), opened, status=Status.WAITING, wake_at=T0 + 9)
    await write_all(store, waiting)
    with pytest.raises(ConflictError, match="open"):
        await store.reset("b", "nap", T0, dry_run=False)


async def test_what_waits_waits_no_more_and_its_children_are_asked_to_end(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a"))
    opened = Row(2, Kind.INVOKE_AND_WAIT, "call", 1, started_at=T0)
    suspended = Row(3, Kind.SUSPEND, "ask", 1, started_at=T0)
    wait = Wait("a", "a", 3, Kind.SUSPEND, "ask", T0)
    children = [
        child_start("c", "a", "a", parent_key="call"),
        new_start("d", root_id="a", parent_id="a", awaited=True, parent_key="call"),
        child_start("e", "a", "a", parent_key="one"),
    ]
    first = change("a", 1, done_row(1, "one"), opened, suspended, starts=children, waits=[wait])
    first.status = Status.WAITING
    await write_all(store, first)
    end = ending(parent_id="a")
    await write_all(store, change("c", 1, root_id="a", ending=end))
    stale = (await read(store, "a")).attempt
    done = await store.reset("a", "one", T0 + 5, dry_run=False)
    assert done.children == {"d": "cancelled"}
    assert (await read(store, "d")).status is Status.CANCELLED
    assert (await read(store, "e")).cancel_requested_at is None
    assert await keys(store, "a") == ["one"]
    assert [i.ref for i in await store.inboxes([("a", "a")])] in ([], ["d"])
    (result,) = await write(store, change("a", stale, done_row(9, "zombie")))
    assert isinstance(result, ClaimLost)


async def test_one_that_is_asked_to_cancel_is_left_alone(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a"))
    opened = Row(2, Kind.WAIT_FOR, "nap", 1, started_at=T0)
    await write_all(store, change("a", 1, done_row(1, "one"), opened, status=Status.WAITING))
    await store.cancel("a", T0)
    with pytest.raises(ConflictError, match="cancel"):
        await store.reset("a", "one", T0, dry_run=False)


async def test_concurrent_steps_of_the_same_turn_stay(store: Store) -> None:
    await write_all(store, owned_start("a"))
    rows = [
        done_row(1, "one"),
        Row(3, "run", "left", 1, turn=2, ok=True, body="1", started_at=T0),
        Row(2, "run", "right", 1, turn=2, ok=True, body="2", started_at=T0),
        Row(4, "patch", "p", 2, ok=True, body="true", started_at=T0),
        Row(5, "patch", "q", 3, ok=True, body="true", started_at=T0),
        Row(6, "run", "late", 1, turn=3, ok=True, body="3", started_at=T0),
    ]
    await write_all(store, change("a", 1, *rows, ending=ending()))
    await store.reset("a", "left", T0, dry_run=False)
    assert await keys(store, "a") == ["one", "right", "left", "p"]


async def test_past_versions_are_read_from_marks(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a", state='{"n": 0}'))
    entries = [
        StateEntry(1, "s", T0 + 1, '[["n",0,0,"1"]]', attempt=1, origin="{}"),
        StateEntry(2, "s", T0 + 2, '[["n",0,0,"2"]]', '[["n",0,0,"2"]]', attempt=1),
        StateEntry(3, "s", T0 + 3, '[["n",0,0,"3"]]', attempt=1),
        StateEntry(4, "s", T0 + 4, '[["n",0,0,"4"]]', '[["n",0,0,"4"]]', attempt=2, origin="[]"),
        StateEntry(5, "s", T0 + 5, '{"n": 5}', attempt=2),
        StateEntry(6, "s", T0 + 6, '[["n",0,0,"6"]]', attempt=2),
    ]
    await write_all(store, change("a", 1, states=entries))
    for version in range(7):
        assert await state_of(store, version=version) == f'{{"n":{version}}}'
    read_ = [e.version for e in await store.states_up_to("a", "a", 4)]
    assert read_ == [0, 2, 4]
    assert [e.version for e in await store.states_up_to("a", "a", 6)] == [5, 6]
    assert [e.version for e in await store.states_between("a", "a", 1, 3)] == [2, 3]
    assert await store.states_between("a", "a", 0, 6) == entries
    at = [await store.state_version_at("a", "a", T0 + n) for n in (-1, 0, 3, 99)]
    assert at == [None, 0, 3, 6]
    assert [await store.state_origin("a", "a", n) for n in (0, 3, 6)] == [None, "{}", "[]"]
    many = await store.latest_states_of([("a", "a"), ("nobody", "nobody")])
    assert delta.document(delta.replay(e.jump or e.body for e in many["a"])) == '{"n":6}'
    assert many["nobody"] == []
