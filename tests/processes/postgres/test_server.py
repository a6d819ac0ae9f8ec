"""The server restarts, is away, or its answers are lost: steps wait, nothing is done twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.pgserver import Server
from polos import PolosClient, WorkflowContext, WorkflowState, workflow
from polos.engine import engine
from polos.errors import StoreUnavailableError
from polos.store.postgres import committer, links, session
from polos.workflow import registry
from tests.postgres import fresh_url
from tests.processes.postgres.places import COMMIT, Line, PostgresSite
from tests.processes.running import output, until


class Tally(WorkflowState):
    log: list[str] = []


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())


@pytest.mark.slow
async def test_a_restart_with_workers_connected_causes_no_takeover(tmp_path: Path) -> None:
    server = Server(fsync=False)
    site = PostgresSite(tmp_path, server.url(schema="restarts"))
    try:
        workers = [site.start("serve", f"w{n}") for n in range(3)]
        (tmp_path / "unused").touch()
        await until(lambda: site.rows("SELECT 1 FROM worker HAVING count(*) = 3"))
        await until(lambda: any(f"begin {w.pid}" in site.effects() for w in workers))
        attempt = "SELECT attempt, worker_id FROM execution WHERE workflow_id = 'held'"
        before = site.rows(attempt)
        beats = "SELECT worker_id, count FROM beat ORDER BY 1"
        await asyncio.to_thread(server.restart, "immediate")
        await asyncio.to_thread(server.shut)
        site.let_go()  # a step ends while nothing can be written
        await until(lambda: any(line.startswith("end ") for line in site.effects()))
        await asyncio.to_thread(server.start)
        await until(lambda: "last" in site.effects())
        # All of them beat again, several times: whoever wanted to take over has had the time.
        first = await moved(site, beats, {})
        for _ in range(5):
            first = await moved(site, beats, first)
        assert site.rows("SELECT count(*) FROM worker WHERE stopped_at IS NULL") == [(3,)]
        assert site.rows("SELECT count(*) FROM worker") == [(3,)]
        assert site.rows(attempt) == before
        assert sum(line.startswith("begin ") for line in site.effects()) == 1
        assert site.rows("SELECT status FROM execution WHERE workflow_id = 'held'") == [
            ("completed",)
        ]
        for worker in workers:
            worker.terminate()
        for worker in workers:
            await output(worker)
            assert worker.returncode == 0
        assert site.owned() == []
    finally:
        site.end()
        server.stop()


async def moved(site: PostgresSite, beats: str, before: dict[str, int]) -> dict[str, int]:
    """Wait until every worker's counter has moved on; returns the counters."""
    found: dict[str, int] = {}

    def all_moved() -> bool:
        found.update(dict(site.rows(beats)))
        return len(found) == 3 and all(found[w] > before.get(w, -1) for w in found)

    await until(all_moved)
    return dict(found)


@pytest.mark.slow
async def test_a_worker_can_leave_while_the_server_is_away(tmp_path: Path) -> None:
    server = Server(fsync=False)
    site = PostgresSite(tmp_path, server.url(schema="leaving"))
    try:
        worker = site.start("serve")
        await until(lambda: f"begin {worker.pid}" in site.effects())
        await asyncio.to_thread(server.shut)
        worker.terminate()
        site.let_go()
        await asyncio.to_thread(worker.communicate, timeout=60)
        assert worker.returncode == 0
        await asyncio.to_thread(server.start)
        again = site.start("within")
        assert json.loads(await output(again)) == again.pid
        assert site.effects().count("last") == 1
    finally:
        site.end()
        server.stop()


@pytest.mark.slow
async def test_a_worker_can_leave_while_the_server_says_nothing(tmp_path: Path) -> None:
    """As if the network were gone, or the server frozen: no statement has an end."""
    site = PostgresSite(tmp_path, fresh_url())
    try:
        async with Line(site) as line:
            site.url = line.url()
            worker = site.start("patient")
            await until(lambda: f"begin {worker.pid}" in site.effects())
            line.cut()
            worker.terminate()
            site.let_go()
            await output(worker)
            assert worker.returncode == 0
        site.url = site.plain_url
        again = site.start("within")
        assert json.loads(await output(again)) == again.pid
        assert site.effects().count("last") == 1
    finally:
        site.end()


@asynccontextmanager
async def on_a_line(tmp_path: Path) -> AsyncIterator[tuple[PolosClient, Line, PostgresSite]]:
    site = PostgresSite(tmp_path, fresh_url())
    async with Line(site) as line, PolosClient(line.url()) as client:
        yield client, line, site


@pytest.mark.usefixtures("own_registry")
async def test_who_waits_when_a_client_is_closed_is_told_though_the_server_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "COMMAND_SECONDS", 3600.0)  # the driver gives up nothing
    for module, name in (
        (engine, "LEAVING_SECONDS"),
        (session, "DROP_SECONDS"),
        (session, "CLOSE_SECONDS"),
        (links, "CLOSE_SECONDS"),
        (committer, "CLOSING_SECONDS"),
        (committer, "LAST_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.2)

    @workflow(id="server.told")
    async def told(ctx: WorkflowContext, n: int) -> int:
        return n

    async with on_a_line(tmp_path) as (client, line, _):
        assert await told(client, 1) == 1
        node: Any = await client.node()
        line.cut()
        # One is on its way, the others gather behind it.
        starts = [asyncio.create_task(told.invoke(client, n)) for n in range(3)]
        await until(lambda: node.store.busy and not any(each.done() for each in starts))
        async with asyncio.timeout(60):
            await client.close()
            outcomes = await asyncio.gather(*starts, return_exceptions=True)
        for each in outcomes:
            assert isinstance(each, StoreUnavailableError)
            assert "the client was closed while the database" in str(each)


@pytest.mark.parametrize("shape", ["lone", "many"])
@pytest.mark.usefixtures("own_registry")
async def test_what_was_committed_before_the_answer_was_lost_is_there_once(
    tmp_path: Path, shape: str
) -> None:
    """Start, row, ending and waking: each loses the answer to its statement or commit once."""
    ran: list[str] = []

    @workflow(id="server.leaf")
    async def leaf(ctx: WorkflowContext, n: int) -> int:
        return await ctx.step.run("leaf", lambda: n)

    @workflow(id="server.code", state_schema=Tally)
    async def code(ctx: WorkflowContext, name: str) -> list[str]:
        async def body(key: str) -> str:
            ran.append(f"{name} {key}")
            ctx.state.log.append(key)
            return key

        found = [await ctx.step.run(key, body, key) for key in "ab"]
        found.append(str(await ctx.step.invoke_and_wait("child", leaf, 1)))
        await ctx.step.wait_for("pause", seconds=0.01)
        found.append(await ctx.step.run("c", body, "c"))
        return found

    def is_write(data: bytes) -> bool:
        # The third message from now on: of each kind of write once, over the rounds.
        return COMMIT in data or b"INSERT INTO" in data or data[:1] == b"B"

    async with on_a_line(tmp_path) as (client, line, site):
        assert await code(client, "warm") == ["a", "b", "1", "c"]
        names = ["x"] if shape == "lone" else [f"x{n}" for n in range(5)]
        rounds = 12
        for nth in range(rounds):
            ran.clear()
            left = nth

            def lose(data: bytes) -> bool:
                nonlocal left
                if is_write(data):
                    left -= 1
                return left < 0

            line.lose_answer_to = lose
            async with asyncio.timeout(60):
                handles = await asyncio.gather(
                    *(code.invoke(client, n, idempotency_key=f"{n} {nth}") for n in names)
                )
                results = await asyncio.gather(*(each.result() for each in handles))
            assert results == [["a", "b", "1", "c"]] * len(names)
            assert sorted(ran) == sorted(f"{name} {key}" for name in names for key in "abc")
            for handle in handles:
                assert await handle.state() == {"log": ["a", "b", "c"]}
                (child,) = await client.list_executions(parent_execution_id=handle.id)
                assert child["status"] == "completed"
                steps = await client.get_steps(handle.id)
                assert [each["step_key"] for each in steps] == ["a", "b", "child", "pause", "c"]
        assert line.lost >= rounds - 1
        assert site.rows("SELECT count(*) FROM execution") == [(2 * (len(names) * rounds + 1),)]
        assert site.rows("SELECT count(*) FROM inbox") == [(0,)]
        assert site.rows("SELECT count(*) FROM worker") == [(1,)]  # no claim was lost


@pytest.mark.slow
async def test_an_idle_worker_asks_one_question_for_each_beat(tmp_path: Path) -> None:
    """With 0.6 s between two beats that is fewer than two a second."""
    site = PostgresSite(tmp_path, fresh_url())
    beats = "SELECT count FROM beat"
    try:
        async with Line(site) as line:
            site.url = line.url()
            worker = site.start("idle")
            await until(lambda: site.rows(f"{beats} WHERE count > 5"))
            ((begun,),), asked = site.rows(beats), line.asked
            await until(lambda: site.rows(f"{beats} WHERE count > $1", begun + 10))
            ((ended,),), asked = site.rows(beats), line.asked - asked
            print(f"{asked} messages for {ended - begun} beats")
            assert asked <= (ended - begun) * 1.3 + 1
            worker.kill()
    finally:
        site.end()
