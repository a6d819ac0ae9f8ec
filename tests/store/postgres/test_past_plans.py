"""A past state is read from mark to mark, also where the server has no statistics yet."""

import pytest

from polos.store.postgres import queries
from polos.store.postgres.links import Link, connect
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import NAMES, fresh_url
from tests.store.test_finding_ways import Counting

COUNT = 5_000
ENTRIES = (
    "INSERT INTO {s}.state (root_id, execution_id, version, at, body, jump) SELECT 'a', 'a', n, n, "
    "CASE WHEN n = 0 THEN '{\"n\": 0}' ELSE '[]' END, CASE WHEN n > 0 AND n % 64 = 0 THEN '[]' END "
    f"FROM generate_series(0, {COUNT}) n"
)


@pytest.mark.parametrize("name", NAMES)
async def test_a_past_state_is_read_from_mark_to_mark(name: str) -> None:
    location = Location(fresh_url(name))
    store = PostgresStore(location)
    await store.open()

    async def fill(link: Link) -> None:
        await link.execute("ALTER TABLE {s}.state SET (autovacuum_enabled = off)")
        await link.fetch(ENTRIES)

    await store.do(lambda link, _: fill(link))
    connection = await connect(location, location.dsn, writer=False)
    link = Counting(connection, location)
    link.blocks = 0
    try:
        found = await queries.states_up_to(link, "a", "a", COUNT - 1)
        marks = list(range(0, COUNT, 64))
        assert [each.version for each in found] == [*marks, *range(marks[-1] + 1, COUNT)]
        assert link.blocks < 200
    finally:
        await connection.close()
        await store.close()
