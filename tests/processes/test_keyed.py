"""Many processes with executions of one key: one at a time, also when some of them are killed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from polos import PolosClient
from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["stop_servers"]

pytestmark = pytest.mark.slow

SECONDS_MAX = 180
PROCESSES = 4
EACH = 5
FAILING = EACH // 2
PROGRAM = """
import asyncio, sys
from polos import PolosClient, WorkflowContext, WorkflowState, workflow

class Count(WorkflowState):
    running: int = 0
    total: int = 0

@workflow(
    id="count", state_schema=Count, state_key=lambda key: key[0], state_on_failure=sys.argv[3]
)
async def count(ctx: WorkflowContext, key: str) -> int:
    assert ctx.state.running == 0, "two at once"
    ctx.state.running += 1
    await ctx.step.uuid("one")
    await ctx.step.wait_for("rest", seconds=0.01)
    ctx.state.running -= 1
    ctx.state.total += 1
    await ctx.step.uuid("two")
    if key.endswith("fails"):
        raise ValueError("told to")
    return ctx.state.total

async def main(url, number):
    async with PolosClient(url) as client:
        keys = ["k"] * number + ["k fails"] * (number // 2)
        handles = [await count.invoke(client, key) for key in keys]
        print("started", flush=True)
        if not number:
            while [e for s in ("queued", "running", "waiting")
                   for e in await client.list_executions(status=s)]:
                await asyncio.sleep(0.05)
        await asyncio.gather(*(h.result() for h in handles), return_exceptions=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture(params=["sqlite", *NAMES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/polos.db"
    return fresh_url(request.param)


def run(url: str, number: int, declared: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, url, str(number), declared]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("declared", ["keep", "rollback"])
def test_executions_of_many_processes_count_one_after_the_other(url: str, declared: str) -> None:
    asyncio.run(_opened(url))
    processes = [run(url, EACH, declared) for _ in range(PROCESSES)]
    killed = processes[0]
    assert killed.stdout is not None
    assert killed.stdout.readline() == "started\n"
    killed.kill()
    for process in processes:
        _, errors = process.communicate(timeout=SECONDS_MAX)
        assert process is killed or process.returncode == 0, errors
    last = run(url, 0, declared)  # what the killed one left that nobody took over yet
    _, errors = last.communicate(timeout=SECONDS_MAX)
    assert last.returncode == 0, errors
    totals, failures, state = asyncio.run(_left(url))
    assert failures == PROCESSES * FAILING
    counted = PROCESSES * (EACH + (FAILING if declared == "keep" else 0))
    assert state == {"running": 0, "total": counted}
    assert len(set(totals)) == PROCESSES * EACH
    if declared == "rollback":
        assert totals == list(range(1, counted + 1))


async def _opened(url: str) -> None:
    async with PolosClient(url):
        pass


async def _left(url: str) -> tuple[list[int], int, object]:
    async with PolosClient(url) as client:
        found = await client.list_executions(workflow_id="count", limit=100)
        failed = [each for each in found if each["status"] == "failed"]
        totals = sorted(each["result"] for each in found if each["status"] == "completed")
        assert len(failed) + len(totals) == len(found)
        assert {each["error"] for each in failed} == {"told to"}
        return totals, len(failed), await client.get_state("count", "k")
