"""Keyed state and amendments, verb by verb, on every store."""

from __future__ import annotations

from typing import Any

import pytest

from polos.codecs import EncryptionCodec, generate_key
from polos.core.amending import Amendment
from polos.core.keyed import Keyed
from polos.core.model import Start, StateEntry, Status
from polos.core.triggers import Firing, Trigger
from polos.errors import ConflictError
from polos.store.lined import LinedStore
from polos.store.lining import Lining
from polos.store.protocol import Store
from tests.store.records import (
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
)

KEY = ("wf", "k")


def keyed_start(id: str, *, key: str = "k", **options: Any) -> Start:
    keyed = Keyed(key, rollback=options.pop("rollback", False), given=options.pop("given", False))
    return owned_start(id, state='{"n":0}', keyed=keyed, **options)


def ends(id: str, status: Status = Status.COMPLETED, n: int = 1) -> Any:
    body = f'{{"n":{n}}}'
    how = ending(status, key=KEY)
    return change(id, 1, states=[StateEntry(1, None, T0, body)], ending=how)


async def test_the_first_of_a_key_is_owned_and_the_others_are_queued_for_nobody(
    store: Store,
) -> None:
    await store.register_worker(worker("w1"))
    starts = [keyed_start("a"), keyed_start("b"), keyed_start("x", key="other")]
    await write_all(store, *starts)
    assert [each.attempt for each in starts] == [1, 0, 1]
    assert [each.is_behind for each in starts] == [False, True, False]
    assert (await read(store, "b")).wake_at is None
    assert (await read(store, "b")).state_key == "k"
    assert await claim_all(store, "w1", takes_queue=True) == []


async def test_an_end_commits_the_state_and_wakes_the_next_one(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, keyed_start("a"), keyed_start("b"))
    await write_all(store, ends("a", n=5))
    found = await store.keyed_state(*KEY)
    assert found is not None
    assert (found.state, found.version, found.execution_id) == ('{"n":5}', 1, "a")
    assert await claim_all(store, "w1") == ["b"]
    states = await store.states("b", "b")
    assert [entry.body for entry in states] == ['{"n":5}']


@pytest.mark.parametrize(("rollback", "left"), [(False, '{"n":5}'), (True, None)])
async def test_a_failure_leaves_what_was_declared(
    store: Store, rollback: bool, left: str | None
) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, keyed_start("a", rollback=rollback))
    await write_all(store, ends("a", Status.FAILED, n=5))
    found = await store.keyed_state(*KEY)
    assert (None if found is None else found.state) == left


async def test_who_dies_leaves_those_behind_it_where_they_are(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await store.register_worker(worker("w2", takes_queue=True))
    await write_all(store, keyed_start("a"), keyed_start("b"))
    await store.stop_worker("w1", T0, crashed=True)
    assert await claim_all(store, "w2") == ["a"]
    await store.cancel("b", T0)
    assert (await read(store, "b")).status is Status.CANCELLED
    assert (await read(store, "a")).status is Status.RUNNING


async def test_those_without_a_place_precede_who_was_started_later(store: Store) -> None:
    await store.register_worker(worker("w1", takes_queue=True))
    await write_all(store, new_start("a"), new_start("b"), new_start("c", deployment_id="green"))
    assert not await store.is_preceded("wf", "a", None)
    assert await store.is_preceded("wf", "b", None)
    assert not await store.is_preceded("wf", "c", "green")
    assert not await store.is_preceded("other", "b", None)
    assert {"a", "b"} <= {*await claim_all(store, "w1", takes_queue=True)}
    assert await store.is_preceded("wf", "b", None)
    assert await store.enter_key("a", 1, Keyed("k")) == []
    assert not await store.is_preceded("wf", "b", None)
    # What began before the workflow had a key, and what is parked, takes no place.
    await write_all(store, change("b", 1, done_row(1, "x")))
    assert not await store.is_preceded("wf", "z", None)
    await write_all(store, new_start("d"))
    assert await store.is_preceded("wf", "z", None)
    await store.cancel("d", T0)
    assert not await store.is_preceded("wf", "z", None)


async def test_who_fires_hears_how_its_starts_stand_with_their_keys(store: Store) -> None:
    lined: Any = LinedStore(store, Lining(EncryptionCodec(generate_key())))
    await lined.register_worker(worker("w1"))
    await lined.register_triggers([Trigger("wf", "t", 1, None)])
    await lined.write_keyed_state(*KEY, StateEntry(0, None, T0, '{"n":9}'), None)
    starts = [keyed_start("a", loaded=object()), keyed_start("b", loaded=object())]
    assert await lined.fire(Firing("wf", "t", 0, 2, starts))
    # The one begins with the state of its key, which its claim reads; the other stands behind it.
    assert [(each.attempt, each.is_behind, each.loaded) for each in starts] == [
        (0, False, None),
        (0, True, None),
    ]


async def test_an_initial_state_is_refused_where_there_is_one(store: Store) -> None:
    entry = StateEntry(0, None, T0, '{"n":9}')
    await store.write_keyed_state(*KEY, entry, None)
    refused, taken = await write(
        store, keyed_start("a", given=True), keyed_start("x", key="new", given=True)
    )
    assert isinstance(refused, ConflictError)
    assert taken == "x"
    assert await store.execution("a") is None
    with pytest.raises(ConflictError, match="has version 1, not 0"):
        await store.write_keyed_state(*KEY, entry, 0)
    before = await store.write_keyed_state(*KEY, None, 1)
    assert before is not None
    assert before.state == '{"n":9}'
    assert await store.keyed_state(*KEY) is None


async def test_an_amendment_is_a_row_an_entry_and_a_fence(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a", state='{"n":0}'))
    waits = change("a", 1, done_row(1, "x"), status=Status.WAITING, wake_at=T0 + 10)
    await write_all(store, waits)
    entry = StateEntry(1, None, T0 + 1, '{"n":4}', origin='{"who":"ann"}')
    amendment = Amendment(0, entry, '[["set",["n"],4]]')
    await store.amend("a", amendment)
    record = await read(store, "a")
    assert (record.status, record.attempt, record.wake_at) == (Status.WAITING, 2, T0 + 10)
    row = (await store.steps("a", "a"))[-1]
    assert (row.seq, row.turn, row.kind, row.info) == (2, 2, "patch_state", '{"who":"ann"}')
    assert (await store.latest_states("a", "a"))[-1].body == '{"n":4}'
    with pytest.raises(ConflictError, match="has version 1, not 0"):
        await store.amend("a", amendment)


async def test_what_runs_is_not_amended(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a", state='{"n":0}'), new_start("q", state='{"n":0}'))
    entry = StateEntry(1, None, T0, '{"n":4}')
    with pytest.raises(ConflictError, match="is running"):
        await store.amend("a", Amendment(0, entry, "[]"))
    await store.amend("q", Amendment(0, entry, "[]"))
    assert (await read(store, "q")).attempt == 0
