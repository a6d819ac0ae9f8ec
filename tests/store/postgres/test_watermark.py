"""Who watches asks one cheap question while nobody writes but beats."""

from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url


async def test_beats_leave_the_watermark_where_it_is() -> None:
    location = Location(fresh_url())
    watcher, worker = PostgresStore(location), PostgresStore(location)
    await watcher.open()
    await worker.open()
    await worker.session.hold("w1")
    await worker.session.beat()
    for _ in range(100):  # the server itself may write now and then
        before = await watcher.watermark()
        await worker.session.beat()
        if await watcher.watermark() == before:
            break
    else:
        raise AssertionError("each beat moved it")
    await worker.close()
    await watcher.close()
