"""`polos worker` as real processes: it serves, drains, replaces what dies, and leaves nothing."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from polos import PolosClient, events
from tests.guards import own_registry
from tests.processes.running import Site, output, until

pytestmark = pytest.mark.slow
__all__ = ["own_registry"]  # this process only starts and looks: it registers nothing

ROOT = Path(__file__).resolve().parents[2]
JOBS = "tests.processes.jobs"


def start(site: Site, *options: str, module: str = JOBS) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "polos.cli", "worker", module, "--url", site.url, *options]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"JOBS_FOLDER": str(site.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    site.processes.append(process)
    return process


def live(site: Site) -> set[int]:
    return {pid for (pid,) in site.rows("SELECT pid FROM worker WHERE stopped_at IS NULL")}


def began(site: Site, name: str) -> list[int]:
    """Return the processes in which the body of an execution began."""
    lines = [line.split() for line in site.effects()]
    return [int(line[2]) for line in lines if line[:2] == ["begin", name]]


async def serving(site: Site, count: int) -> set[int]:
    await until(lambda: len(live(site)) == count)
    return live(site)


async def hold(site: Site, client: PolosClient, *names: str) -> list[str]:
    """Start executions whose body waits for a word; returns their ids."""
    handles = [await client.invoke("held", name) for name in names]
    await until(lambda: all(began(site, name) for name in names))
    return [handle.id for handle in handles]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("processes", [1, 2])
async def test_a_signal_lets_running_steps_end_and_hands_the_rest_back(
    site: Site, number: signal.Signals, processes: int
) -> None:
    process = start(site, "--processes", str(processes))
    await serving(site, processes)
    async with PolosClient(site.url) as client:
        (id,) = await hold(site, client, "a")
        process.send_signal(number)
        (site.folder / "go").touch()
        assert await output(process) == ""
        assert process.returncode == 0
        assert site.owned() == []
        assert [line.split()[0] for line in site.effects()][:2] == ["begin", "end"]
        steps = {each["step_key"]: each["status"] for each in await client.get_steps(id)}
        assert steps["body"] == "completed"
        # And the next one goes on behind the recorded step.
        again = start(site)
        await client.get_handle(id).result()
        again.send_signal(signal.SIGTERM)
        await output(again)
        assert site.effects().count("last a") == 1
        assert len(began(site, "a")) == 1


async def test_a_step_that_does_not_end_is_handed_back_after_the_drain_limit(site: Site) -> None:
    process = start(site, "--drain-seconds", "0.1")
    await serving(site, 1)
    async with PolosClient(site.url) as client:
        (id,) = await hold(site, client, "a")
        process.send_signal(signal.SIGTERM)
        await output(process)
        assert (process.returncode, site.owned()) == (0, [])
        assert (await client.get_execution(id))["status"] == "queued"


async def test_a_killed_process_is_replaced_and_its_executions_finish(site: Site) -> None:
    process = start(site, "--processes", "2")
    before = await serving(site, 2)
    async with PolosClient(site.url) as client:
        names = [f"n{n}" for n in range(8)]
        ids = await hold(site, client, *names)
        victim = began(site, "n0")[0]
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(live(site) - {victim}) == 2)
        (new,) = live(site) - before
        assert alive(new)
        (site.folder / "go").touch()
        results = [await client.get_handle(each).result() for each in ids]
    assert victim not in results
    assert set(results) <= {new, *before}
    assert sorted(each for each in site.effects() if each.startswith("last")) == [
        f"last {name}" for name in names
    ]
    process.send_signal(signal.SIGTERM)
    assert await output(process) == ""
    assert (process.returncode, site.owned()) == (0, [])
    assert not any(alive(pid) for pid in before | {new})


async def test_a_process_that_is_told_to_stop_by_itself_is_replaced(site: Site) -> None:
    process = start(site, "--processes", "2")
    before = await serving(site, 2)
    told = min(before)
    os.kill(told, signal.SIGTERM)
    await until(lambda: told not in live(site) and len(live(site)) == 2)
    process.send_signal(signal.SIGTERM)
    await output(process)
    assert (process.returncode, site.owned()) == (0, [])


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_second_signal_ends_it_at_once(site: Site, processes: int) -> None:
    process = start(site, "--processes", str(processes), "--drain-seconds", "600")
    before = await serving(site, processes)
    log = process.stderr
    assert log is not None
    async with PolosClient(site.url) as client:
        await hold(site, client, "a")
        process.send_signal(signal.SIGINT)
        while "stopping" not in await asyncio.to_thread(log.readline):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        await output(process)
    assert process.returncode == 130
    assert not any(alive(pid) for pid in before)


async def test_the_processes_of_a_killed_supervisor_leave(site: Site) -> None:
    process = start(site, "--processes", "2")
    before = await serving(site, 2)
    process.kill()
    await until(lambda: not any(alive(pid) for pid in before))
    assert site.owned() == []


async def test_what_another_process_would_refuse_too_is_not_tried_again(site: Site) -> None:
    process = start(site, "--processes", "2", module="tests.processes.unheard_of")
    _, log = await asyncio.to_thread(process.communicate)
    assert process.returncode == 2
    assert log.count("there is no module 'tests.processes.unheard_of'") <= 2


async def test_a_process_that_dies_at_once_is_started_again_with_growing_pauses(
    site: Site,
) -> None:
    module = site.folder / "broken.py"
    module.write_text("raise RuntimeError('broken on purpose')\n")
    process = start(site, "--processes", "2", module=str(module))
    assert process.stderr is not None
    pauses: list[str] = []
    while len(pauses) < 6:
        line = await asyncio.to_thread(process.stderr.readline)
        assert line
        if "a new one starts in" in line:
            pauses.append(line.rpartition(" in ")[2].strip())
    process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(process.communicate)
    assert sorted(pauses) == ["0.25 s", "0.25 s", "0.5 s", "0.5 s", "1 s", "1 s"]
    assert process.returncode == 0


async def test_it_serves_what_its_options_name(site: Site) -> None:
    process = start(site, "--workflow", "brief", "--deployment-id", "d1", "--concurrency", "3")
    await serving(site, 1)
    assert site.rows("SELECT workflows, takes_queue FROM worker") == [('["brief"]', 1)]
    async with PolosClient(site.url) as client:
        assert await (await client.invoke("brief")).result() == process.pid
    process.send_signal(signal.SIGTERM)
    out, log = await asyncio.to_thread(process.communicate)
    assert out == ""
    for part in ("started", "brief", f"pid {process.pid}", "up to 3 executions", "stopped"):
        assert part in log, log


async def test_it_removes_what_is_older_than_its_retention(site: Site) -> None:
    process = start(site, "--retention", "1s")
    await serving(site, 1)
    async with PolosClient(site.url) as client:
        assert await (await client.invoke("brief")).result() == process.pid
        await until(lambda: not site.rows("SELECT id FROM execution"))
    assert site.rows("SELECT * FROM step") == []
    process.send_signal(signal.SIGTERM)
    await output(process)
    assert process.returncode == 0


async def test_it_removes_events_that_are_older_than_their_retention(site: Site) -> None:
    async with PolosClient(site.url) as client:
        await events.publish(client, "news", {"data": {}})
    # In a process of its own: the supervisor hands the option on.
    process = start(site, "--processes", "2", "--event-retention", "1s")
    await serving(site, 2)
    await until(
        lambda: site.rows("SELECT last FROM topic") and not site.rows("SELECT * FROM event")
    )
    process.send_signal(signal.SIGTERM)
    await output(process)
    assert process.returncode == 0


async def test_many_remove_at_once_and_only_what_has_ended(site: Site) -> None:
    process = start(site, "--processes", "2", "--retention", "1s")
    await serving(site, 2)
    async with PolosClient(site.url) as client:
        (kept,) = await hold(site, client, "a")
        for _ in range(3):
            handles = [await client.invoke("brief") for _ in range(60)]
            results = await asyncio.gather(*(each.result() for each in handles))
            assert set(results) <= live(site)
        await until(lambda: site.rows("SELECT id FROM execution") == [(kept,)])
        assert site.rows("SELECT DISTINCT root_id FROM step WHERE root_id <> ?", kept) == []
        (site.folder / "go").touch()
        assert await client.get_handle(kept).result() in live(site)
    process.send_signal(signal.SIGTERM)
    _, log = await asyncio.to_thread(process.communicate)
    assert (process.returncode, site.owned()) == (0, [])
    assert "older than their retention" in log
    assert "Traceback" not in log
