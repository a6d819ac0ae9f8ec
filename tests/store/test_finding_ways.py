"""Among many executions, what is declared is found by reading little: counted, not timed."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import apsw
import asyncpg
import pytest

from polos.core import ids, where
from polos.core.where import Query
from polos.engine.asking import Asking
from polos.store.postgres import finding as postgres
from polos.store.postgres.links import Link, connect
from polos.store.postgres.location import Location as PostgresLocation
from polos.store.postgres.store import PostgresStore
from polos.store.protocol import Store
from polos.store.sqlite import finding as sqlite
from polos.store.sqlite.connection import Location, migrate
from polos.store.sqlite.store import SqliteStore
from tests.postgres import fresh_url
from tests.store.records import T0

pytestmark = pytest.mark.slow

COUNT = 100_000
INSTRUCTIONS_MAX = 250_000
"""Of SQLite's machine, for one list; to go through all takes two millions."""
BLOCKS_MAX = 12_000
"""Of PostgreSQL, in its cache, for one list; to go through all takes hundreds of thousands."""

# One millisecond apart. `few` has 1,000 values, `many` has one for each; `old` is 1 in the older
# half and 2 in the newer one; 40 are waiting, and 30 failed.
FILL = """
INSERT INTO {s}execution (root_id, id, workflow_id, root_workflow_id, status, attempt, created_at,
    completed_at, error)
  SELECT id, id, 'wf', 'wf',
    CASE WHEN n % 2500 = 7 THEN 'waiting' WHEN n % 3333 = 8 THEN 'failed' ELSE 'completed' END, 1,
    at, CASE WHEN n % 2500 <> 7 THEN at END, CASE WHEN n % 3333 = 8 THEN '{}' END FROM {s}made;
INSERT INTO {s}field_index (root_id, execution_id, path, workflow_id, value, number)
  SELECT id, id, 'state.few', 'wf', r.value, n % 1000 FROM {s}made
  JOIN {s}ranked r ON r.number = n % 1000;
INSERT INTO {s}field_index (root_id, execution_id, path, workflow_id, value, number)
  SELECT id, id, 'state.many', 'wf', '3' || substr('0000000' || n, -7), NULL FROM {s}made;
INSERT INTO {s}field_index (root_id, execution_id, path, workflow_id, value, number)
  SELECT id, id, 'state.old', 'wf', r.value, r.number FROM {s}made
  JOIN {s}ranked r ON r.number = CASE WHEN n < 50000 THEN 1 ELSE 2 END;
"""


def made() -> list[tuple[int, str, int]]:
    moments = [(n, T0 + 1000 * n) for n in range(COUNT)]
    return [(n, f"{ids.first_id(at)}-7000-8000-000000000000", at) for n, at in moments]


RANKED = [(n, where.rank(n)) for n in range(1000)]
MOMENT = where.EPOCH + timedelta(microseconds=T0 + 1000 * COUNT // 2)
WHERES: dict[str, dict[str, Any]] = {
    "equal": {"state.few": 7},
    "equal, half of all": {"state.old": 1},
    "equal to nothing": {"state.few": -1},
    "another": {"state.few": ("!=", 999)},
    "another, half of all": {"state.old": ("!=", 2)},
    "more, half of all": {"state.few": (">", 500)},
    "more, rare": {"state.few": (">", 998)},
    "more than any": {"state.few": (">", 1000)},
    "less, half of all": {"state.old": ("<", 2)},
    "less, rare, of many": {"state.many": ("<", "0000100")},
    "between": {"state.few": [(">=", 100), ("<", 110)]},
    "between nothing": {"state.few": [(">", 500), ("<", 100)]},
    "one of three": {"state.few": ("in", [5, 6, 7])},
    "one of five hundred": {"state.few": ("in", list(range(500)))},
    "anything": {"state.few": ("exists", True)},
    "equal, and failed": {"state.old": 1, "status": "failed"},
    "more, and failed": {"state.few": (">", 500), "status": "failed"},
    "more, and waiting": {"state.few": (">=", 0), "status": "waiting"},
    "more, and running": {"state.few": (">=", 0), "status": "running"},
    "equal, of the older half": {"state.few": 7, "created_at": ("<", MOMENT)},
    "more, of the older half": {"state.few": (">", 500), "created_at": ("<", MOMENT)},
    "another, of the older half": {"state.old": ("!=", 2), "created_at": ("<", MOMENT)},
    "two that fit no execution": {"state.few": (">", 998), "state.old": [(">", 2)]},
    "two": {"state.few": ("in", [5, 6]), "state.old": ("<", 2)},
}


class Reading:
    """What asks reads of a store, with all that it read counted."""

    def __init__(self, store: Store, run: Callable[..., Awaitable[Any]], module: Any) -> None:
        self.declared = store.declared
        self.lining = store.lining
        self._run = run
        self._module = module

    async def find(self, query: Query, limit: int) -> Any:
        return await self._run(self._module.find, query, limit)

    async def floor(self, query: Query, skip: int) -> Any:
        return await self._run(self._module.floor, query, skip)

    async def count_entries(self, query: Query, most: int) -> Any:
        return await self._run(self._module.count_entries, query, most)

    async def count_values(self, query: Query, most: int) -> Any:
        return await self._run(self._module.count_values, query, most)


async def check(reading: Reading, spent: Callable[[], int], most: int) -> None:
    """Ask for all, from the top and from the middle on, and compare what is read."""
    asking = Asking(cast("Store", reading))
    middle = made()[COUNT // 2][1]
    for name, given in WHERES.items():
        for filters in ({"workflow_id": "wf"}, {"workflow_id": "wf", "before": middle}):
            before = spent()
            found, note = await asking.find(filters, where.parse(given), 50)
            cost = spent() - before
            assert note is None
            assert cost < most, (name, filters, cost)
            assert [each.id for each in found] == sorted((e.id for e in found), reverse=True)


async def test_sqlite_reads_little(tmp_path: Path) -> None:
    path = tmp_path / "polos.db"
    connection = apsw.Connection(str(path))
    migrate(connection, str(path), read_only=False)
    connection.execute("BEGIN; CREATE TEMP TABLE made (n, id, at)")
    connection.execute("CREATE TEMP TABLE ranked (number INTEGER PRIMARY KEY, value)")
    connection.executemany("INSERT INTO made VALUES (?, ?, ?)", made())
    connection.executemany("INSERT INTO ranked VALUES (?, ?)", RANKED)
    connection.execute(FILL.replace("{s}", ""))
    connection.execute("COMMIT")
    store = SqliteStore(Location(f"sqlite:///{path}"))
    await store.open()
    await store.declare([("wf", f"state.{name}") for name in ("few", "many", "old")], "")
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 100
        return False

    connection.set_progress_handler(count, 100)

    async def run(function: Any, *arguments: Any) -> Any:
        return function(connection, *arguments)

    try:
        await check(Reading(store, run, sqlite), lambda: steps, INSTRUCTIONS_MAX)
    finally:
        await store.close()
        connection.close()


class Counting(Link):
    """A link that adds up the blocks that its statements read."""

    __slots__ = ("blocks",)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        text = statement.replace("{s}", self._schema)
        plan = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"
        found: Any = await self.connection.fetch(plan, *arguments)
        plan = json.loads(found[0][0])[0]["Plan"]
        self.blocks += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return await super().fetch(statement, *arguments)


@pytest.fixture
async def location() -> AsyncIterator[PostgresLocation]:
    location = PostgresLocation(fresh_url())
    store = PostgresStore(location)
    await store.open()
    await store.declare([("wf", f"state.{name}") for name in ("few", "many", "old")], "")
    await store.close()
    connection: Any = await asyncpg.connect(
        location.dsn, server_settings={"search_path": location.schema}
    )
    async with connection.transaction():
        await connection.execute("CREATE TABLE made (n int, id text, at bigint)")
        await connection.execute("CREATE TABLE ranked (number int, value text)")
        await connection.copy_records_to_table("made", records=made())
        await connection.copy_records_to_table("ranked", records=RANKED)
        text = FILL.replace("{s}", "").replace(
            "substr('0000000' || n, -7)", "lpad(n::text, 7, '0')"
        )
        await connection.execute(text)
    yield location
    await connection.close()


@pytest.mark.parametrize("analyzed", [False, True], ids=["never analyzed", "analyzed"])
async def test_postgres_reads_little(location: PostgresLocation, analyzed: bool) -> None:
    store = PostgresStore(location)
    await store.open()
    connection = await connect(location, location.dsn, writer=False)
    link = Counting(connection, location)
    link.blocks = 0
    if analyzed:
        await connection.execute(f"VACUUM ANALYZE {location.schema}.execution")
        await connection.execute(f"VACUUM ANALYZE {location.schema}.field_index")

    async def run(function: Any, *arguments: Any) -> Any:
        return await function(link, *arguments)

    try:
        await check(Reading(store, run, postgres), lambda: link.blocks, BLOCKS_MAX)
    finally:
        await connection.close()
        await store.close()
