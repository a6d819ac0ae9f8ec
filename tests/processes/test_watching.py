"""States of executions that other processes run are watched, and their owner is killed."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polos import PolosClient
from tests.guards import own_registry
from tests.postgres import NAMES, fresh_url, stop_servers
from tests.processes.running import LIMIT_SECONDS

__all__ = ["own_registry", "stop_servers"]

PROGRAM = Path(__file__).with_name("watched.py")
Run = Callable[[str], subprocess.Popen[str]]
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

    def start(mode: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), mode, url, "x"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def gather(watch: Any, into: dict[str, list[int]]) -> None:
    async for each in watch:
        into.setdefault(each["execution_id"], []).append(each["seq"])


async def test_nothing_is_lost_or_repeated_when_the_owner_is_killed(url: str, run: Run) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), PolosClient(url) as client:
        many: dict[str, list[int]] = {}
        watching = client.watch("watched")
        gathering = asyncio.create_task(gather(watching, many))
        while not watching.waits:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        owner = run("start")
        assert owner.stdout is not None
        ids = owner.stdout.readline().split()
        watches = [client.watch_state(each, after_version=-1) for each in ids]
        seen = [[await anext(each) for _ in range(5)] for each in watches]
        owner.kill()
        owner.wait()
        run("work")
        for items, watch in zip(seen, watches, strict=True):
            items += [each async for each in watch]
        for items, id_ in zip(seen, ids, strict=True):
            assert items == await client.state_history(id_)
            assert items[-1]["state"]["n"] == 60
            while len(many.get(id_, ())) < len(items):  # noqa: ASYNC110 - filled by the task
                await asyncio.sleep(0.005)
            assert many[id_] == [each["seq"] for each in items]
        gathering.cancel()
