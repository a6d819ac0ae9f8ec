"""Streams between processes, of one that is killed while it streams."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polos import PolosClient
from polos.client.streams import Chunk
from tests.guards import own_registry
from tests.postgres import NAMES, fresh_url, stop_servers
from tests.processes.running import LIMIT_SECONDS

__all__ = ["own_registry", "stop_servers"]

PROGRAM = Path(__file__).with_name("streamer.py")
pytestmark = pytest.mark.slow
EXPECTED = {
    None: [f"{part} {n}" for part in ("begin", "between", "end") for n in range(5)],
    "async": list(range(40)),
    "thread": list(range(1000, 1040)),
}


@pytest.fixture(params=["sqlite", NAMES[0], f"{NAMES[0]} without bells"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'polos.db'}"
    return fresh_url() + ("&bells=off" if "without" in request.param else "")


def start(url: str, last: object = "") -> tuple["subprocess.Popen[str]", str]:
    command = [sys.executable, str(PROGRAM), url, str(last)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ready, execution_id = process.stdout.readline().split()
    assert ready == "ready"
    return process, execution_id


def valid(chunks: list[Chunk]) -> dict[str | None, list[object]]:
    """Return what a reader keeps: what came before a mark of its step is void."""
    found: dict[str | None, list[object]] = {None: []}
    for chunk in chunks:
        if chunk.type == "reset":
            found[chunk.step_key] = []
        else:
            found.setdefault(chunk.step_key, []).append(chunk.data)
    return found


@pytest.mark.parametrize("dies_at", ["begin 2", 20, "between 3"])
async def test_a_reader_elsewhere_sees_each_life_and_loses_nothing(
    url: str, dies_at: object
) -> None:
    async with asyncio.timeout(LIMIT_SECONDS), PolosClient(url) as client:
        process, execution_id = await asyncio.to_thread(start, url, dies_at)
        chunks: list[Chunk] = []
        second: subprocess.Popen[str] | None = None
        try:
            async for chunk in client.stream(execution_id):
                chunks.append(chunk)
                if chunk.data == dies_at and second is None:
                    process.send_signal(signal.SIGKILL)
                    second, same = await asyncio.to_thread(start, url)
                    assert same == execution_id
            result = await client.get_handle(execution_id).result()
        finally:
            for each in (process, second):
                if each is not None:
                    each.kill()
                    each.communicate()
        again = [chunk async for chunk in client.stream(execution_id)]
        behind = [chunk async for chunk in client.stream(execution_id, offset=chunks[9].offset)]
    assert result == "done"
    assert again == chunks
    assert behind == chunks[10:]
    assert valid(chunks) == EXPECTED
    resets = [chunk.step_key for chunk in chunks if chunk.type == "reset"]
    assert resets == (["async"] if dies_at == 20 else [])
