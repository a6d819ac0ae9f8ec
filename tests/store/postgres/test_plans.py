"""A million executions: every statement finds its rows by an index, with statistics and without."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from polos.core.model import Row, StateEntry, Status
from polos.store.lining import Lining
from polos.store.postgres import batch, queries, retention, session, verbs
from polos.store.postgres.links import Link, connect
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from polos.store.protocol import HEAD_START_US, VERSION_MAX
from tests.postgres import fresh_url
from tests.store.records import (
    T0,
    change,
    done_row,
    ending,
    new_start,
    owned_start,
    worker,
    write_all,
)

pytestmark = pytest.mark.slow

ROWS = 1_000_000
OPEN_FROM = 990_000
"""Those before have ended; of the others a third each is queued, running and waiting."""
BIG = {"execution", "step", "state", "inbox"}
BLOCKS_MAX = 2000
"""What one statement may read of a database of 100,000 blocks."""

# Trees of ten, whose first is the root; 20 workflows; 10 workers, half of whom have stopped.
LOAD = f"""
INSERT INTO execution (root_id, id, workflow_id, root_workflow_id, status, attempt, worker_id,
    wake_at, parent_id, parent_key, awaited, idempotency_key, created_at, completed_at,
    session_id, run_timeout_seconds, cancel_requested_at, error, blocked_reason)
  SELECT lpad((n / 10 * 10)::text, 12, '0'), lpad(n::text, 12, '0'), 'wf' || n % 20, 'wf0',
    CASE WHEN n < {OPEN_FROM} THEN CASE WHEN n % 5000 = 0 THEN 'failed' ELSE 'completed' END
      ELSE (ARRAY['queued', 'running', 'waiting'])[n % 3 + 1] END,
    1, 'w' || n % 10,
    CASE WHEN n >= {OPEN_FROM} AND n % 3 <> 1 THEN {T0} + n END,
    CASE WHEN n % 10 > 0 THEN lpad((n / 10 * 10)::text, 12, '0') END, 'k', true,
    CASE WHEN n % 10 = 0 THEN 'key' || n END, {T0}, CASE WHEN n < {OPEN_FROM} THEN {T0} END,
    CASE WHEN n % 10 = 0 THEN 'session' || n / 1000 END,
    CASE WHEN n % 100 = 0 THEN 1e9 END, CASE WHEN n % 1000 = 0 THEN {T0} END,
    CASE WHEN n < {OPEN_FROM} AND n % 5000 = 0 THEN '{{"type":"E","message":"m"}}' END,
    CASE WHEN n % 50000 = 2 AND n > {OPEN_FROM} THEN 'a reason' END
  FROM generate_series(1, {ROWS}) n;
INSERT INTO step (root_id, execution_id, seq, kind, key, asked, turn, ok, body, pinned,
    state_version, attempts, started_at)
  SELECT lpad((n / 10 * 10)::text, 12, '0'), lpad(n::text, 12, '0'), 1, 'run', 's', 0, 1, true,
    '"done"', true, 1, 1, {T0} FROM generate_series(1, {ROWS}) n;
INSERT INTO state (root_id, execution_id, version, at, body)
  SELECT lpad((n / 10 * 10)::text, 12, '0'), lpad(n::text, 12, '0'), 0, {T0}, '{{"a":1}}'
  FROM generate_series(1, {ROWS}) n;
INSERT INTO inbox (root_id, execution_id, id, kind, ref, at)
  SELECT lpad((n / 10 * 10)::text, 12, '0'), lpad(n::text, 12, '0'), 'i', 'child', 'x', {T0}
  FROM generate_series({ROWS} / 2, {ROWS}) n;
INSERT INTO worker (id, host, pid, started_at, stopped_at, takes_queue, workflows)
  SELECT 'w' || n, 'host', 1, {T0}, CASE WHEN n < 5 THEN {T0} END, true, '["wf1"]'
  FROM generate_series(0, 9) n;
INSERT INTO beat (worker_id, count) SELECT 'w' || n, 1 FROM generate_series(5, 9) n;
"""


async def load(location: Location) -> None:
    """Fill the tables; indexes come after the rows, which is quicker."""
    store = PostgresStore(location)
    await store.open()
    await store.close()
    settings = {"search_path": location.schema, "maintenance_work_mem": "256MB"}
    connection: Any = await asyncpg.connect(location.dsn, server_settings=settings)
    indexes = await connection.fetch(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() "
        "AND tablename = 'execution' AND indexname NOT LIKE '%pkey'"
    )
    async with connection.transaction():
        for table in BIG:  # nobody may analyze them meanwhile
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        for name, _ in indexes:
            await connection.execute(f"DROP INDEX {name}")
        await connection.execute(LOAD)
        for _, definition in indexes:
            await connection.execute(definition)
    await connection.close()


async def analyze(location: Location) -> None:
    connection: Any = await asyncpg.connect(location.dsn)
    for table in (*BIG, "worker", "beat"):
        await connection.execute(f"ANALYZE {location.schema}.{table}")
    await connection.close()


@pytest.fixture(scope="module")
def loaded() -> Location:
    location = Location(fresh_url())
    asyncio.run(load(location))
    return location


@pytest.fixture(scope="module", params=["never analyzed", "analyzed"])
def location(request: pytest.FixtureRequest, loaded: Location) -> Location:
    if request.param == "analyzed":
        asyncio.run(analyze(loaded))
    return loaded


class Explaining(Link):
    """A link that runs each statement twice: first to see what it reads."""

    __slots__ = ("seen",)

    def __init__(self, connection: Any, location: Location) -> None:
        super().__init__(connection, location)
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        await self._explain_all(statement, *arguments)
        return await super().fetch(statement, *arguments)

    async def execute(self, statement: str, *arguments: Any) -> str:
        await self._explain_all(statement, *arguments)
        return await super().execute(statement, *arguments)

    async def _explain_all(self, statement: str, *arguments: Any) -> None:
        text = statement.replace("{s}", self._schema)
        transaction = self.connection.transaction()
        await transaction.start()
        await self._explain("ANALYZE, BUFFERS", text, *arguments)
        await transaction.rollback()
        await self._explain_generic(text)

    async def _explain(self, options: str, text: str, *arguments: Any) -> None:
        explain = f"EXPLAIN ({options}, FORMAT JSON) {text}"
        found = await self.connection.fetch(explain, *arguments)
        self.seen.append((text, json.loads(found[0][0])[0]["Plan"]))

    async def _explain_generic(self, text: str) -> None:
        """Plan as for any arguments, which is what a prepared statement comes to."""
        numbers = [int(n) for n in re.findall(r"\$(\d+)", text)]
        given = f"({', '.join(['NULL'] * max(numbers))})" if numbers else ""
        await self.connection.execute(f"PREPARE probe AS {text}")
        mode = await self.connection.fetchval("SHOW plan_cache_mode")
        await self.connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        await self._explain("COSTS", f"EXECUTE probe{given} -- {text}")
        await self.connection.execute(f"SET LOCAL plan_cache_mode = {mode}; DEALLOCATE probe")

    def faults(self) -> list[str]:
        """Return what reads a big table without an index, or too much by one."""
        assert self.seen
        return [
            f"{fault}\nin {text}\n{json.dumps(plan, indent=1)}"
            for text, plan in self.seen
            for fault in faults(plan)
        ]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from nodes(each)


def faults(plan: dict[str, Any]) -> Iterator[str]:
    for node in nodes(plan):
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
            yield f"reads all of {node['Relation Name']}"
        if node.get("Rows Removed by Filter", 0) * node.get("Actual Loops", 1) > 5000:
            yield f"throws away {node['Rows Removed by Filter']} rows"
    blocks = sum(plan.get(f"Shared {each} Blocks", 0) for each in ("Hit", "Read"))
    if blocks > BLOCKS_MAX:
        yield f"reads {blocks} blocks"


LINKS = {
    # As a process's pool and session have it.
    "pool": (False, False),
    # As the writer has it, whose plans do not depend on arguments.
    "writer": (True, False),
    # As a connection through PgBouncer, where settings come with each transaction.
    "pooled": (False, True),
}


@pytest.fixture(params=list(LINKS))
async def link(request: pytest.FixtureRequest, location: Location) -> AsyncIterator[Explaining]:
    writer, pooled = LINKS[request.param]
    url = f"{location.dsn}&schema={location.schema}{'&pgbouncer=on' if pooled else ''}"
    place = Location(url)
    connection = await connect(place, place.dsn, writer=writer)
    link = Explaining(connection, place)
    # Nothing of it stays: the next test finds the same tables.
    with contextlib.suppress(Undone):
        async with link.transaction():
            yield link
            raise Undone
    await connection.close()


class Undone(Exception):
    pass


def eid(n: int) -> str:
    return f"{n:012}"


def root(n: int) -> str:
    return eid(n // 10 * 10)


RUNNING = [n for n in range(OPEN_FROM + 1, OPEN_FROM + 400, 3) if n % 3 == 1]
QUEUED = [n - 1 for n in RUNNING]
SOME = [eid(n) for n in range(500_000, 500_100)]
PAIRS = [(root(n), eid(n)) for n in range(995_000, 995_100)]
WORKFLOWS = [f"wf{n}" for n in range(1, 11)]
LATE = T0 + 2 * ROWS

READS: dict[str, Any] = {
    "execution": lambda k: queries.execution(k, eid(7)),
    "steps": lambda k: queries.steps(k, root(7), eid(7)),
    "states": lambda k: queries.states(k, root(7), eid(7)),
    "latest_states": lambda k: queries.states_up_to(k, root(7), eid(7), VERSION_MAX),
    "inboxes": lambda k: queries.inboxes(k, PAIRS),
    "many_steps": lambda k: queries.many_steps(k, PAIRS),
    "many_states": lambda k: queries.many_states(k, PAIRS),
    "last_seqs": lambda k: queries.last_seqs(k, PAIRS),
    "claimable": lambda k: queries.claimable(k, "w7", WORKFLOWS, False, LATE, 0, 100),
    "claimable of the queue": lambda k: queries.claimable(k, "w7", WORKFLOWS, True, LATE, 0, 100),
    "claimable, none": lambda k: queries.claimable(k, "w7", WORKFLOWS, True, T0, 0, 100),
    "claimable of one workflow": lambda k: queries.claimable(k, "x", ["wf1"], True, LATE, 0, 1),
    "to_cancel": lambda k: queries.to_cancel(k, "w7"),
    "overdue": lambda k: queries.overdue(k, T0),
    "next_wake": lambda k: queries.next_wake(k, "w7", WORKFLOWS),
    "due for removal": lambda k: retention.due(k, "wf10", T0 + 1, ["completed"], None, 20),
    "nothing due": lambda k: retention.due(k, "wf10", T0, None, None, 100),
    "finished_workflows": retention.finished_workflows,
    "has_stopped": lambda k: queries.has_stopped(k, "w7"),
    "live_workers": queries.live_workers,
    "finished": lambda k: queries.finished(k, SOME),
    "list": lambda k: queries.listing(k, {}, 50),
    "list before": lambda k: queries.listing(k, {"before": eid(500_000)}, 50),
    "list of a workflow": lambda k: queries.listing(k, {"workflow_id": "wf3"}, 50),
    "list of an unknown workflow": lambda k: queries.listing(k, {"workflow_id": "no"}, 50),
    "list of a tree": lambda k: queries.listing(k, {"root_id": root(77)}, 50),
    "list of children": lambda k: queries.listing(k, {"parent_id": root(77)}, 50),
    "list of a session": lambda k: queries.listing(k, {"session_id": "session7"}, 50),
    "list of an unknown session": lambda k: queries.listing(k, {"session_id": "no"}, 50),
    "list of the failed": lambda k: queries.listing(k, {"status": Status.FAILED}, 50),
    "list of the cancelled": lambda k: queries.listing(k, {"status": Status.CANCELLED}, 50),
}


def changes(**options: Any) -> list[Any]:
    return [change(eid(n), 1, done_row(2, "x"), root_id=root(n), **options) for n in RUNNING[:20]]


LINING = Lining()
WRITES: dict[str, Any] = {
    "starts": lambda k: batch.write(
        k,
        [new_start(f"n{n}", state="{}", idempotency_key=f"n{n}") for n in range(50)],
        LINING,
        again=False,
    ),
    "starts sent again": lambda k: batch.write(
        k,
        [new_start(f"n{n}", state="{}", idempotency_key="key10") for n in range(50)],
        LINING,
        again=True,
    ),
    "a lone start": lambda k: batch.write_lone(k, owned_start("n", state="{}")),
    "a lone row": lambda k: batch.write_lone(k, changes()[0]),
    "a lone new row": lambda k: batch.write_lone(k, changes(new=True)[0]),
    "a lone first row": lambda k: batch.write_lone(k, changes(status=Status.RUNNING)[0]),
    "a lone ending": lambda k: batch.write_lone(
        k, change(eid(RUNNING[0]), 1, root_id=root(RUNNING[0]), ending=ending())
    ),
    "rows": lambda k: batch.write(k, changes(status=Status.RUNNING), LINING, again=False),
    "rows sent again": lambda k: batch.write(
        k, changes(states=[StateEntry(7, "x", T0, "[]")]), LINING, again=True
    ),
    "everything": lambda k: batch.write(
        k,
        [
            change(
                eid(n),
                1,
                Row(3, "run", "z", 0),
                root_id=root(n),
                states=[StateEntry(1, "z", T0, "[]")],
                consumed=["x"],
                forget=[9],
                cancel_delivered=True,
                retry_count=1,
                status=Status.RUNNING,
            )
            for n in RUNNING[:20]
        ],
        LINING,
        again=False,
    ),
    "waiting": lambda k: batch.write(k, changes(status=Status.WAITING), LINING, again=False),
    "handed back": lambda k: batch.write(k, changes(status=Status.QUEUED), LINING, again=False),
    "endings": lambda k: batch.write(
        k,
        [
            change(eid(n), 1, root_id=root(n), ending=ending(parent_id=root(n)))
            for n in RUNNING[:20]
        ],
        LINING,
        again=False,
    ),
    "an ending sent again": lambda k: batch.write(
        k, [change(eid(7), 0, root_id=root(7), ending=ending())], LINING, again=True
    ),
    "claim": lambda k: verbs.claim(
        k,
        "w7",
        [(root(n), eid(n), 1) for n in QUEUED[:20]],
        {eid(n): (1, 1) for n in QUEUED[:9]},
        LATE,
        limit=100,
        again=False,
    ),
    "cancel": lambda k: verbs.cancel(k, root(995_550), T0, LINING),
    "block": lambda k: verbs.block(k, eid(RUNNING[0]), 1, "no"),
    "retry": lambda k: verbs.retry(k, eid(5000), T0),
    "prune": lambda k: retention.prune(k, [eid(n) for n in range(0, 50, 10)], LATE, 1000),
    "register_worker": lambda k: verbs.register_worker(k, worker("w99")),
}


@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_a_statement_reads_no_more_than_it_needs(link: Explaining, name: str) -> None:
    await (READS | WRITES)[name](link)
    assert link.faults() == []


# These are about many executions by nature: no more than those that are open, or owned.
ABOUT_MANY: dict[str, Any] = {
    "list of the running": lambda k: queries.listing(k, {"status": Status.RUNNING}, 50),
    "list of the completed": lambda k: queries.listing(k, {"status": Status.COMPLETED}, 50),
    "force_cancel": lambda k: verbs.force_cancel(k, T0 + 1, T0 + 9, LINING),
    "stop_worker": lambda k: verbs.stop_worker(
        k, "w7", T0, crashed=True, crashes_max=10, again=False
    ),
    "sort_out": lambda k: verbs.sort_out(k, T0 + OPEN_FROM + 300),
}


@pytest.mark.parametrize("name", list(ABOUT_MANY))
async def test_what_is_about_many_does_not_pass_what_has_ended(link: Explaining, name: str) -> None:
    await ABOUT_MANY[name](link)
    for text, plan in link.seen:
        for node in nodes(plan):
            scans = node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG
            passed = node.get("Rows Removed by Filter", 0) > ROWS - OPEN_FROM + 1
            if scans or passed:
                raise AssertionError(f"{text}\n{json.dumps(plan, indent=1)}")


@pytest.mark.parametrize("takes_queue", [False, True])
async def test_a_look_around_reads_the_heads_of_indexes(
    link: Explaining, takes_queue: bool
) -> None:
    statement = session._SURVEY.replace("{space}", "1").replace("{before}", "$7")
    moments = (LATE, LATE - HEAD_START_US, 1, T0, T0)
    await link.fetch(statement, "w7", WORKFLOWS, takes_queue, *moments)
    assert link.faults() == []


async def test_to_run_and_to_beat_touches_no_index() -> None:
    location = Location(fresh_url())
    store = PostgresStore(location)
    await store.open()
    ids = [f"e{n}" for n in range(20)]
    await write_all(store, *(owned_start(id) for id in ids))
    await write_all(store, *(change(id, 1, status=Status.RUNNING) for id in ids))
    await store.session.hold("w1")
    for _ in range(20):
        await store.session.beat()
    await store.close()
    connection: Any = await asyncpg.connect(location.dsn)
    async with connection.transaction():
        await connection.execute("SELECT pg_stat_force_next_flush()")
    query = (
        "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables "
        "WHERE schemaname = $1 AND n_tup_upd > 0 ORDER BY 1"
    )
    found: list[Any] = []
    while len(found) < 2:  # the counters of a session come when it has ended
        found = [tuple(each) for each in await connection.fetch(query, location.schema)]
    assert found == [("beat", 20, 20), ("execution", 20, 20)]
    await connection.close()
