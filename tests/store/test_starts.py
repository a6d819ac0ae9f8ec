"""Starts: one row each, with state entry 0, and the first one of an idempotency key holds."""

import pytest

from polos.core.model import StateEntry, Status
from polos.errors import StoreError
from polos.store.protocol import Store
from tests.store.records import (
    T0,
    claim_all,
    new_start,
    owned_start,
    read,
    worker,
    write,
    write_all,
    write_alone,
)


async def test_a_start_is_queued_with_all_that_was_given(store: Store) -> None:
    start = new_start(
        "a",
        session_id="s",
        user_id="u",
        deployment_id="d",
        queue_name="q",
        concurrency_key="c",
        batch_id="b",
        idempotency_key="i",
        run_timeout_seconds=1.5,
    )
    assert await write(store, start) == ["a"]
    found = await read(store, "a")
    for name in [
        "id",
        "root_id",
        "workflow_id",
        "root_workflow_id",
        "attempt",
        "worker_id",
        "payload",
        "payload_type",
        "parent_id",
        "parent_key",
        "awaited",
        "session_id",
        "user_id",
        "deployment_id",
        "queue_name",
        "concurrency_key",
        "batch_id",
        "idempotency_key",
        "run_timeout_seconds",
        "created_at",
    ]:
        assert getattr(found, name) == getattr(start, name), name
    assert found.status is Status.QUEUED
    assert found.started_at is found.completed_at is found.result is found.error is None
    assert found.retry_count == found.crashes == 0


async def test_an_unknown_execution_is_none(store: Store) -> None:
    assert await store.execution("nobody") is None
    assert await store.steps("nobody", "nobody") == []
    assert await store.states("nobody", "nobody") == []
    assert await store.latest_states("nobody", "nobody") == []


@pytest.mark.parametrize("alone", [True, False])
async def test_state_entry_0_is_stored_with_the_start(store: Store, alone: bool) -> None:
    start = new_start("a", state='{"n": 1}')
    await (write_alone(store, start) if alone else write(store, start, new_start("b")))
    expected = [StateEntry(0, None, T0, '{"n": 1}')]
    assert await store.states("a", "a") == expected
    assert await store.latest_states("a", "a") == expected
    assert await store.states("b", "b") == []


async def test_many_starts_in_one_batch(store: Store) -> None:
    ids = [f"{n:03}" for n in range(500)]
    assert await write(store, *(new_start(id) for id in ids)) == ids
    assert len(await store.listing({}, -1)) == 500


async def test_a_text_with_a_zero_character_comes_back(store: Store) -> None:
    await write(store, new_start("a", state='{"t": "\\u0000"}', session_id="é\u2028"))
    assert (await read(store, "a")).session_id == "é\u2028"
    assert (await store.states("a", "a"))[0].body == '{"t": "\\u0000"}'


async def test_a_known_idempotency_key_gives_the_first_execution(store: Store) -> None:
    first = await write_alone(store, new_start("a", idempotency_key="k", state="{}"))
    second = await write_alone(store, new_start("b", idempotency_key="k", state="{}"))
    assert first == second == "a"
    assert await store.execution("b") is None
    assert await store.states("b", "b") == []


async def test_the_same_key_twice_in_one_batch(store: Store) -> None:
    results = await write(
        store,
        new_start("a", idempotency_key="k"),
        new_start("b"),
        new_start("c", idempotency_key="k"),
        new_start("d", idempotency_key="other"),
    )
    assert results == ["a", "b", "a", "d"]
    assert {e.id for e in await store.listing({}, -1)} == {"a", "b", "d"}


async def test_a_key_belongs_to_its_workflow(store: Store) -> None:
    results = await write(
        store,
        new_start("a", "one", idempotency_key="k"),
        new_start("b", "two", idempotency_key="k"),
    )
    assert results == ["a", "b"]


async def test_a_key_holds_after_the_first_execution_ended(store: Store) -> None:
    await write_all(store, new_start("a", idempotency_key="k"))
    await store.cancel("a", T0)
    assert await write(store, new_start("b", idempotency_key="k")) == ["a"]


async def test_an_id_that_is_taken_fails_alone(store: Store) -> None:
    await write_all(store, new_start("taken", state='{"n": 1}'))
    results = await write(
        store,
        new_start("a"),
        new_start("b", state="{}"),
        new_start("taken", state='{"n": 2}'),
        new_start("c", idempotency_key="k"),
    )
    assert results[0] == "a"
    assert results[1] == "b"
    assert isinstance(results[2], StoreError)
    assert results[3] == "c"
    assert [s.body for s in await store.states("taken", "taken")] == ['{"n": 1}']
    assert {e.id for e in await store.listing({}, -1)} == {"a", "b", "c", "taken"}


async def test_an_owned_start_is_nobodys_to_claim(store: Store) -> None:
    await write_all(store, owned_start("a", "w1"))
    for worker_id in ("w1", "w2"):
        assert await store.claimable(worker_id, ["wf"], True, T0 + 10**12, 10) == []


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("state", ["{}", None])
async def test_what_a_dead_worker_starts_is_for_anyone(
    store: Store, alone: bool, state: str | None
) -> None:
    """It does not know yet that it was declared dead; nobody would look after what it owns."""
    await store.register_worker(worker("w1"))
    await store.register_worker(worker("w2"))
    await store.stop_worker("w1", T0, crashed=True)
    start = owned_start("a", "w1", state=state)
    if alone:
        assert await write_alone(store, start) == "a"
    else:
        assert await write(store, start, owned_start("b", "w2")) == ["a", "b"]
    assert start.attempt == 0  # so that its process does not run it
    assert await claim_all(store, "w2") == ["a"]
    assert (await read(store, "a")).attempt == 1
