"""Behind PgBouncer in transaction mode, with a direct way to the server beside it and without."""

import asyncio
import itertools
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from bench.pgserver import Server
from polos import PolosClient, Worker, WorkflowContext, WorkflowState, workflow
from polos.core.model import Status
from polos.errors import StoreError, StoreUnavailableError
from polos.store.postgres.location import Location
from polos.store.postgres.store import PostgresStore
from tests.store.postgres.pooler import BINARY, Pooler
from tests.store.records import (
    SECOND,
    T0,
    change,
    claim_all,
    done_row,
    new_start,
    owned_start,
    read,
    worker,
    write_all,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        BINARY is None, reason="PgBouncer: not tested, pgbouncer is not installed (apt-get)"
    ),
]
# ruff: noqa: ASYNC110 - what another process leaves in a file can only be polled
PROGRAM = Path(__file__).parents[2] / "processes" / "program.py"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(fsync=False)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[Pooler]:
    pooler = Pooler(server)
    yield pooler
    pooler.stop()


@pytest.fixture(params=["direct", "pooled only"])
def url(request: pytest.FixtureRequest, pooler: Pooler) -> str:
    return pooler.url(f"b{next(_numbers)}", direct=request.param == "direct")


@pytest.fixture
async def pair(url: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    one, two = PostgresStore(Location(url)), PostgresStore(Location(url))
    await one.open()
    await two.open()
    yield one, two
    await two.close()
    await one.close()


class Count(WorkflowState):
    done: int = 0


@workflow(id="bouncer.parent", state_schema=Count)
async def parent(ctx: WorkflowContext, n: int) -> int:
    for step in range(3):
        ctx.state.done += await ctx.step.run(f"s{step}", lambda: n)
    await ctx.step.wait_for("w", seconds=0.01)
    ctx.state.done += await ctx.step.invoke_and_wait("child", child, n)
    return ctx.state.done


@workflow(id="bouncer.child")
async def child(ctx: WorkflowContext, n: int) -> int:
    return await ctx.step.run("one", lambda: n)


@workflow(id="bouncer.long")
async def long(ctx: WorkflowContext) -> None:
    await ctx.step.wait_for("w", days=1)


async def test_workflows_run(url: str) -> None:
    async with PolosClient(url) as client:
        serving = asyncio.create_task((worker := Worker(client=client)).run())
        results = await asyncio.gather(*(parent(client, n) for n in range(40)))
        assert results == [4 * n for n in range(40)]
        handle = await long.invoke(client)
        await handle.cancel()
        found = await client.list_executions(workflow_id="bouncer.parent", limit=50)
        assert [each["status"] for each in found] == ["completed"] * 40
        await worker.shutdown()
        await serving
    async with PolosClient(f"{url}&mode=ro") as client:
        assert len(await client.list_executions(limit=100)) == 81


async def test_many_open_a_fresh_schema_at_once(url: str) -> None:
    stores = [PostgresStore(Location(url)) for _ in range(8)]
    await asyncio.gather(*(each.open() for each in stores))
    for each in stores:
        await each.close()


async def test_each_execution_is_claimed_once(pair: tuple[PostgresStore, PostgresStore]) -> None:
    for n, each in enumerate(pair):
        await each.register_worker(worker(f"w{n}", takes_queue=True))
    await write_all(pair[0], *(new_start(f"e{n}") for n in range(50)))
    found = await asyncio.gather(
        *(claim_all(each, f"w{n}", takes_queue=True) for n, each in enumerate(pair))
    )
    while len(claimed := list(itertools.chain(*found))) < 50:
        found.append(await claim_all(pair[0], "w0", takes_queue=True))
    assert sorted(claimed) == sorted(f"e{n}" for n in range(50))


async def test_a_lock_needs_the_direct_way_and_a_beat_does_not(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = pair
    direct = one.location.direct is not None
    await one.register_worker(worker("w1"))
    await one.session.hold("w1")
    before = await two.session.look("w1")
    await one.session.beat()
    assert await two.session.look("w1") == (before or 0) + 1

    async def locked() -> bool:
        survey = await two.survey(
            "w2", ["wf"], takes_queue=True, now=T0, queued_before=0, asked_before=0
        )
        (neighbour,) = survey.neighbours
        return neighbour.locked

    assert await locked()
    one.kill()
    while direct and await locked():
        pass  # the server takes a moment to see that the connection is gone
    assert await locked() is not direct


async def test_a_bell_needs_the_direct_way(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, two = pair
    heard: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
    two.on_bell = heard.set_result
    one.session.ring({"queue"})
    if one.location.direct is not None:
        assert await heard == {"queue"}
    else:
        assert one.session._bell_task is None


async def test_what_another_process_ends_is_seen_by_polling(url: str) -> None:
    async with PolosClient(f"{url}&bells=off") as one, PolosClient(f"{url}&bells=off") as two:
        handle = await parent.invoke(one, 2)
        assert await two.get_handle(handle.id).result(timeout=100) == 8


async def test_work_goes_on_when_the_server_restarts(url: str, server: Server) -> None:
    async with PolosClient(url) as client:
        running = [asyncio.create_task(parent(client, n)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(server.restart)
        assert await asyncio.gather(*running) == [4 * n for n in range(100)]
        found = await client.list_executions(limit=1000)
        assert {each["status"] for each in found} == {"completed"}


async def test_work_goes_on_when_the_pooler_restarts(url: str, pooler: Pooler) -> None:
    async with PolosClient(url) as client:
        await parent(client, 1)
        running = [asyncio.create_task(parent(client, n)) for n in range(20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(pooler.kill)
        await asyncio.to_thread(pooler.start)
        assert await asyncio.gather(*running) == [4 * n for n in range(20)]


async def test_a_killed_process_is_taken_over(url: str, tmp_path: Path) -> None:
    async def start(mode: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), mode, url, str(tmp_path)),
            stdout=subprocess.PIPE,
        )

    first = await start("within")
    effects = tmp_path / "effects"
    while not (effects.exists() and f"begin {first.pid}" in effects.read_text()):
        await asyncio.sleep(0.02)
    first.kill()
    await first.wait()
    (tmp_path / "go").touch()
    # Eleven seconds without a direct way: only the beat speaks for a worker.
    second = await start("within")
    out, _ = await second.communicate()
    assert json.loads(out) == second.pid
    assert [line.split()[0] for line in effects.read_text().splitlines()].count("first") == 1


async def test_a_zombie_writes_nothing(pair: tuple[PostgresStore, PostgresStore]) -> None:
    one, two = pair
    for each, name in ((one, "w1"), (two, "w2")):
        await each.register_worker(worker(name))
    await write_all(one, owned_start("a"))
    assert await two.stop_worker("w1", T0, crashed=True) == 1
    assert await claim_all(two, "w2", now=T0 + 9 * SECOND) == ["a"]
    with pytest.raises(AssertionError, match="no longer owns"):
        await write_all(one, change("a", 1, done_row(1, "x")))
    assert (await read(two, "a")).status is Status.RUNNING


async def test_a_direct_way_to_another_database_is_refused(server: Server, pooler: Pooler) -> None:
    connection = await asyncpg.connect(Location(server.url()).dsn)
    await connection.execute("CREATE DATABASE elsewhere")
    await connection.close()
    location = Location(pooler.url("apart", direct=False), server.url("elsewhere"))
    with pytest.raises(StoreError, match="direct URL leads to another database"):
        await PostgresStore(location).open()


async def test_a_pooler_that_is_not_there(server: Server, pooler: Pooler) -> None:
    pooler.kill()
    try:
        for direct in (True, False):
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                await PolosClient(pooler.url("nobody", direct=direct)).list_executions()
    finally:
        pooler.start()
