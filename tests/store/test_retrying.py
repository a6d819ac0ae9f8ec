"""Retry and block: a failed execution goes on from its failed step, a blocked one is released."""

import pytest

from polos.core import failure
from polos.core.model import ClaimLost, Failure, Row, Status
from polos.errors import ConflictError, ExecutionNotFoundError
from polos.store.protocol import Store
from tests.store.records import (
    SECOND,
    T0,
    change,
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
    write_alone,
)


def failed_with(step_key: str | None) -> str:
    return failure.dump(Failure("StepExecutionError", "it broke", "OSError", step_key))


async def fail(store: Store, id: str, *rows: Row, blamed: str | None) -> None:
    await write_all(store, owned_start(id, run_timeout_seconds=60.0))
    end = ending(Status.FAILED, failed_with(blamed))
    await write_all(store, change(id, 1, *rows, ending=end))


async def test_it_is_queued_without_the_failed_step_and_what_came_of_it(store: Store) -> None:
    rows = [
        done_row(1, "first"),
        done_row(2, "broken", failed_with("broken"), ok=False),
        done_row(3, "after"),
    ]
    await fail(store, "a", *rows, blamed="broken")
    await store.retry("a", T0 + 5 * SECOND)
    found = await read(store, "a")
    assert (found.status, found.error, found.completed_at) == (Status.QUEUED, None, None)
    assert (found.retry_count, found.attempt) == (1, 2)
    assert await keys(store, "a") == ["first"]
    assert await claim_all(store, "w1", now=T0 + 5 * SECOND) == ["a"]


async def test_the_time_limit_starts_anew(store: Store) -> None:
    await fail(store, "a", blamed=None)
    await store.retry("a", T0 + 100 * SECOND)
    assert (await read(store, "a")).run_timeout_seconds == pytest.approx(160.0)


async def test_a_caught_failure_before_it_stays(store: Store) -> None:
    rows = [
        done_row(1, "caught", failed_with("caught"), ok=False),
        done_row(2, "broken", failed_with("broken"), ok=False),
    ]
    await fail(store, "a", *rows, blamed="broken")
    await store.retry("a", T0)
    assert await keys(store, "a") == ["caught"]


async def test_if_no_step_is_to_blame_the_journal_stays(store: Store) -> None:
    await fail(store, "a", done_row(1, "first"), done_row(2, "second"), blamed=None)
    await store.retry("a", T0)
    assert await keys(store, "a") == ["first", "second"]


async def test_a_delivered_cancellation_is_forgotten(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await store.cancel("a", T0)
    delivered = Row(2, "cancel", None, 1, turn=2, ok=True, started_at=T0)
    end = ending(Status.FAILED, failed_with(None))
    rows = (done_row(1, "x"), delivered)
    await write_all(store, change("a", 1, *rows, cancel_delivered=True, ending=end))
    await store.retry("a", T0)
    found = await read(store, "a")
    assert found.cancel_requested_at is found.cancel_delivered_at is None
    assert await keys(store, "a") == ["x"]


async def test_only_a_failed_or_blocked_one_can_be_retried(store: Store) -> None:
    await write_all(store, *(owned_start(id) for id in ("running", "waiting", "done", "gone")))
    await write_all(store, change("running", 1, status=Status.RUNNING))
    await write(store, change("waiting", 1, status=Status.WAITING))
    await write_all(store, change("done", 1, ending=ending()))
    await write_all(store, change("gone", 1, ending=ending(Status.CANCELLED, "{}")))
    for id, status in (
        ("running", "running"),
        ("waiting", "waiting"),
        ("done", "completed"),
        ("gone", "cancelled"),
    ):
        before = await read(store, id)
        with pytest.raises(ConflictError, match=f"'{id}' is {status}"):
            await store.retry(id, T0)
        assert await read(store, id) == before
    with pytest.raises(ExecutionNotFoundError, match="nobody"):
        await store.retry("nobody", T0)


async def test_a_blocked_one_waits_with_its_reason_and_is_fenced(store: Store) -> None:
    await write_all(store, owned_start("a"))
    assert await store.block("a", 1, "cannot be loaded")
    found = await read(store, "a")
    assert (found.status, found.blocked_reason) == (Status.WAITING, "cannot be loaded")
    assert found.wake_at is None
    assert isinstance(await write_alone(store, change("a", 1, done_row(1, "x"))), ClaimLost)
    assert await claim_all(store, "w1", now=T0 + 10**12, takes_queue=True) == []


async def test_only_the_current_attempt_can_block(store: Store) -> None:
    await write_all(store, owned_start("a"), new_start("b"))
    await write_all(store, change("b", 0, ending=ending()))
    assert not await store.block("a", 2, "stale")
    assert not await store.block("b", 0, "ended")
    assert not await store.block("nobody", 0, "unknown")
    assert (await read(store, "a")).blocked_reason is None


async def test_retry_releases_a_blocked_one_with_its_journal(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, done_row(1, "x")))
    await store.block("a", 1, "no")
    await store.retry("a", T0)
    found = await read(store, "a")
    assert (found.status, found.blocked_reason, found.crashes) == (Status.QUEUED, None, 0)
    assert await keys(store, "a") == ["x"]
    assert await claim_all(store, "w1") == ["a"]
