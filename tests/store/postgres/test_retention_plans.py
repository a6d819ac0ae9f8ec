"""What is due is found by age alone, and removed by the keys of its trees, in a large table."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from polos.store.postgres import retention
from polos.store.postgres.links import Link
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.postgres import fresh_url

COUNT = 30_000
FILL = (
    "INSERT INTO {s}.execution (root_id, id, workflow_id, root_workflow_id, status, attempt, "
    "created_at, completed_at) SELECT i, i, 'wf' || n % 3, 'wf', 'completed', 1, n, n "
    f"FROM (SELECT n, lpad(n::text, 8, '0') AS i FROM generate_series(1, {COUNT}) n) s"
)
STEPS = (
    "INSERT INTO {s}.step (root_id, execution_id, seq, kind, asked, pinned, state_version, "
    "attempts, started_at) SELECT id, id, 1, 'run', 0, true, 0, 1, 1 FROM {s}.execution"
)
ROOTS = [f"{n:08d}" for n in range(1, 101)]


@pytest.fixture
async def store() -> AsyncIterator[PostgresStore]:
    store = PostgresStore(Location(fresh_url()))
    await store.open()

    async def fill(link: Link) -> None:
        for statement in (FILL, STEPS):
            await link.fetch(statement)

    async def analyze(link: Link) -> None:
        await link.fetch("ANALYZE {s}.execution, {s}.step")

    await store.do(lambda link, _: fill(link))
    await store.read(analyze)
    yield store
    await store.close()


async def plan(store: PostgresStore, statement: str, *arguments: Any) -> str:
    async def explain(link: Link) -> str:
        text = statement.replace("{s}", f'"{store.location.schema}"')
        found = await link.connection.fetch(f"EXPLAIN {text}", *arguments)
        return "\n".join(line for (line,) in found)

    return await store.read(explain)


async def test_a_look_reads_the_head_of_an_index(store: PostgresStore) -> None:
    found = await plan(store, retention.DUE, "wf1", COUNT // 2, -1, "", ["completed"], 100)
    assert "execution_finished on execution e" in found
    assert "execution_pkey on execution o" in found
    assert "Seq Scan" not in found
    assert "Sort" not in found


async def test_the_next_workflow_is_one_probe(store: PostgresStore) -> None:
    found = await plan(store, retention.NEXT_WORKFLOW, "wf0")
    assert "execution_finished" in found
    assert "Sort" not in found
    assert await store.finished_workflows() == ["wf0", "wf1", "wf2"]


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (retention.LOCK_TREES, (ROOTS,)),
        (retention.REMOVE_TREES, (ROOTS,)),
        (retention.REMOVE_EXECUTIONS, (ROOTS[0], ROOTS)),
    ],
)
async def test_a_removal_finds_its_rows_by_the_root(
    store: PostgresStore, statement: str, arguments: tuple[Any, ...]
) -> None:
    found = await plan(store, statement, *arguments)
    assert "Seq Scan on execution" not in found
    assert "Seq Scan on step" not in found


async def test_a_large_table_is_pruned_page_by_page(store: PostgresStore) -> None:
    removed = 0
    for _ in range(3):
        page = await store.due("wf1", COUNT, limit=100)
        removed += (await store.prune([root for _, root in page], COUNT)).rows
    assert removed == 600
