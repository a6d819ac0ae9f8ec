"""Workers that stopped long ago are forgotten, unless they left something."""

from polos.core.model import Status
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from polos.store.postgres.verbs import FORGOTTEN_US
from tests.postgres import fresh_url
from tests.store.records import T0, change, owned_start, worker, write, write_all


async def test_who_starts_forgets_workers_that_left_nothing() -> None:
    store = PostgresStore(Location(fresh_url()))
    await store.open()
    for id in ("empty", "left", "late"):
        await store.register_worker(worker(id))
    await write_all(store, owned_start("a", "left"))
    assert await write(store, change("a", 1, status=Status.WAITING)) == ["waiting"]
    for id in ("empty", "left"):
        await store.stop_worker(id, T0 - 1, crashed=False)
    await store.stop_worker("late", T0 + 1, crashed=False)
    new = worker("new")
    new.started_at = T0 + FORGOTTEN_US
    await store.register_worker(new)
    assert sorted(seen.record.id for seen in await store.workers(0)) == ["late", "left", "new"]
    survey = await store.survey(
        "empty", ["wf"], takes_queue=False, now=T0, queued_before=0, asked_before=0
    )
    assert survey.stopped  # frozen until now: it has no row any more
    await store.close()
