"""Events between processes, some of which are killed."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polos import Polos, PolosClient, WorkflowContext, events, workflow
from tests.guards import own_registry
from tests.postgres import NAMES, fresh_url, stop_servers
from tests.processes.running import LIMIT_SECONDS

__all__ = ["own_registry", "stop_servers"]

PROGRAM = Path(__file__).with_name("publisher.py")
Run = Callable[..., subprocess.Popen[str]]
pytestmark = pytest.mark.slow


@pytest.fixture(params=["sqlite", NAMES[0], f"{NAMES[0]} without bells"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'polos.db'}"
    return fresh_url() + ("&bells=off" if "without" in request.param else "")


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    """Return a function that starts a process and returns once it is ready."""
    processes: list[subprocess.Popen[str]] = []

    def start(mode: str, name: str = "x") -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), mode, url, name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Kill a publisher; return what it said was durable: its own numbers, and the topic's."""
    process.kill()
    assert process.stdout is not None
    lines = [line for line in process.stdout.read().split("\n")[:-1] if line.count(" ") == 1]
    return [(int(n), int(number)) for n, number in map(str.split, lines)]


async def test_publishers_that_are_killed_lose_nothing_and_leave_no_gaps(
    url: str, run: Run
) -> None:
    async with PolosClient(url) as client:
        stream = events.subscribe(client, "t", after=0)
        publishers = {name: run("publish", name) for name in ("a", "b")}
        seen = [await anext(stream) for _ in range(30)]
        told = {name: said(process) for name, process in publishers.items()}
        kept = await events.read(client, "t", limit=100_000)
    assert [event.sequence_id for event in kept] == list(range(1, len(kept) + 1))
    assert seen == kept[:30]
    for name, lines in told.items():
        own = [(event.data["n"], event.sequence_id) for event in kept if event.data["by"] == name]
        assert own[: len(lines)] == lines
        assert len(own) <= len(lines) + 1  # one may have been durable before it was said


async def test_what_is_asked_of_a_killed_process_is_answered_by_the_next(
    url: str, run: Run
) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), PolosClient(url) as client:
        answers = events.subscribe(client, "answers", after=0)
        process = run("answer")
        await until_waiting(client)
        for n in range(3):
            if n:
                process = run("answer")
            await events.publish(client, "questions", {"data": {"n": n}})
            process.kill()  # before it answered, or after: the event is its execution's
            process.wait()
            process = run("answer")
            assert (await anext(answers)).data == {"n": n}
            await until_waiting(client)
            process.kill()
            process.wait()
        found = [event.data["n"] for event in await events.read(client, "answers")]
    assert found == [0, 1, 2]


async def until_waiting(client: PolosClient) -> None:
    """Return once the echo waits for a question."""
    await until_status(client, "echo", "waiting")


async def until_status(client: PolosClient | Polos, workflow_id: str, status: str) -> str:
    """Return the id of an execution of a workflow once it has a status."""
    while True:
        for each in await client.list_executions(workflow_id=workflow_id):
            if each["status"] == status:
                return str(each["id"])
        await asyncio.sleep(0.01)


async def test_what_a_dead_process_waited_for_is_followed_at_once(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos.engine.topics.LOOK_UP_SECONDS", 3600.0)
    gate = asyncio.Event()

    @workflow(id="gated")
    async def gated(ctx: WorkflowContext) -> None:
        await ctx.step.run("gate", gate.wait)

    async with asyncio.timeout(LIMIT_SECONDS), Polos(url=url) as here:
        node: Any = await here.node()
        await node.engine.topics.survey()  # it looks once, and then not for an hour
        handle = await gated.invoke(here)
        process = run("hear", f"workflow/gated/{handle.id}")
        hears = await until_status(here, "hears", "waiting")
        process.kill()
        process.wait()
        gate.set()
        await handle.result()
        while not await node.store.inboxes([(hears, hears)]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_events_start_one_execution_each_whoever_dies(url: str, run: Run) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), PolosClient(url) as client:
        seen = events.subscribe(client, "seen", after=0)
        workers = [run("work") for _ in range(2)]
        for n in range(20):
            await events.publish(client, "orders", {"data": {"n": n}})
        numbers = [(await anext(seen)).data["n"] for _ in range(5)]
        workers[0].kill()
        run("work")
        for n in range(20):
            await events.publish(client, "orders", {"data": {"n": n}})
        numbers += [(await anext(seen)).data["n"] for _ in range(35)]
        started = await client.list_executions(workflow_id="single", limit=100)
    assert sorted(numbers) == list(range(1, 41))
    assert len(started) == 40
