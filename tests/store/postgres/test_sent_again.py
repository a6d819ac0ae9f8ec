"""A batch whose answer was lost is sent again: what it brought is there once, and nothing hangs."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from polos.core.model import ClaimLost, Event, Row, Status
from polos.core.work import Renewal
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url
from tests.store.records import T0, Told, change, done_row, owned_start, write, write_all


@pytest.fixture
async def store() -> AsyncIterator[PostgresStore]:
    store = PostgresStore(Location(fresh_url()))
    await store.open()
    await write_all(store, owned_start("x"))
    yield store
    await store.close()


def lose_answer(store: PostgresStore) -> None:
    """Lose the connection behind the next commit, before its answer is there."""

    def gate(moment: str) -> None:
        if moment == "after":
            store.gate = None
            raise ConnectionResetError("lost")

    store.gate = gate


async def test_a_renewal_whose_answer_was_lost_is_told_once(store: PostgresStore) -> None:
    renewal = Renewal("2", None, T0, "workflow/wf/x")
    over: Told = change("x", 1, done_row(1, "s"), renewal=renewal, status=Status.QUEUED, wake_at=0)
    lose_answer(store)
    async with asyncio.timeout(20):
        (result,) = await write(store, over)
    # That it was this very change nobody can tell; the next run is claimed all the same.
    assert isinstance(result, ClaimLost)
    record = await store.execution("x")
    assert record is not None
    assert (record.generation, record.status) == (1, Status.QUEUED)
    found = await store.events("workflow/wf/x", 0, 10)
    assert [each.type for each in found] == ["workflow_start", "step_start", "step_finish"]


async def test_an_event_of_a_release_whose_answer_was_lost_is_there_once(
    store: PostgresStore,
) -> None:
    event = Event("t", "e1", None, "1", T0)
    published = change("x", 1, Row(1, "publish", "p", 0), events=[event], status=Status.QUEUED)
    lose_answer(store)
    async with asyncio.timeout(20):
        await write(store, published)
    assert [each.id for each in await store.events("t", 0, 10)] == ["e1"]
