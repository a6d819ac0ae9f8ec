"""Several processes on one file: one owner for each execution, takeover, freezes, lookers."""

import json
import os
import signal
from collections import Counter, defaultdict

import pytest

from tests.processes.running import Site, output, until


async def test_each_execution_has_one_owner_and_each_effect_happens_once(site: Site) -> None:
    processes = [site.start("work", name) for name in ("a", "b")]
    results = [json.loads(await output(process)) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(len(each) == 30 for each in results)
    effects = [line.split() for line in site.effects()]
    done = Counter(key for key, _ in effects)
    assert set(done) == {
        f"{name}{n}.{step}" for name in "ab" for n in range(30) for step in range(3)
    }
    assert set(done.values()) == {1}
    assert site.owned() == []
    assert site.rows("SELECT count(*) FROM execution WHERE status <> 'completed'") == [(0,)]
    # While its owner lives and has it parked, an execution does not wander.
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for key, pid in effects:
        owners[key.partition(".")[0]].add(pid)
    print(f"{sum(len(each) > 1 for each in owners.values())} of {len(owners)} changed hands")


async def test_after_a_death_the_other_takes_over(site: Site) -> None:
    first = site.start("within")
    await until(lambda: f"begin {first.pid}" in site.effects())
    second = site.start("within")  # waits for the same execution, by its idempotency key
    await until(lambda: (second.pid,) in site.rows("SELECT pid FROM worker"))
    assert f"begin {second.pid}" not in site.effects()
    first.kill()
    first.wait()
    seconds = await until(lambda: f"begin {second.pid}" in site.effects())
    print(f"taken over after {seconds:.2f} s")
    assert seconds < 5
    (site.folder / "go").touch()
    assert json.loads(await output(second)) == second.pid
    assert Counter(site.effects()) == {
        "first": 1,
        f"begin {first.pid}": 1,
        f"begin {second.pid}": 1,
        f"end {second.pid}": 1,
        "last": 1,
    }
    assert site.owned() == []


@pytest.mark.slow
async def test_a_frozen_process_loses_its_executions_and_writes_nothing(site: Site) -> None:
    first = site.start("within")
    await until(lambda: f"begin {first.pid}" in site.effects())
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = site.start("within")
        seconds = await until(lambda: f"begin {second.pid}" in site.effects(), 60)
        print(f"taken over after {seconds:.2f} s of a freeze")
        assert seconds > 5  # a freeze is no death
    finally:
        (site.folder / f"go-{first.pid}").touch()
        os.kill(first.pid, signal.SIGCONT)
    # Its body ends, its worker finds out that it was given up, and enters anew.
    await until(lambda: f"end {first.pid}" in site.effects())
    await until(lambda: len(site.rows("SELECT id FROM worker WHERE pid = ?", first.pid)) == 2)
    body = site.rows("SELECT turn FROM step WHERE key = 'body'")
    assert body in ([], [(None,)])  # what it had begun is not recorded as done
    assert "last" not in site.effects()
    (site.folder / "go").touch()
    assert json.loads(await output(second)) == second.pid
    assert json.loads(await output(first)) == second.pid
    assert site.effects().count("last") == 1
    assert site.rows("SELECT body FROM step WHERE key = 'body'") == [(str(second.pid),)]
    assert site.owned() == []


async def test_a_process_that_registers_nothing_changes_nothing(site: Site) -> None:
    process = site.start("within")
    await until(lambda: f"begin {process.pid}" in site.effects())
    process.kill()  # leaves an execution that everybody else would take over
    process.wait()
    before = site.dump()
    looker = site.start("look")
    await until((site.folder / f"looking-{looker.pid}").exists)
    # A worker looks for the dead as soon as it opens: time enough for a wrong one to act.
    neighbour = site.start("look")
    await until((site.folder / f"looking-{neighbour.pid}").exists)
    (site.folder / "looked").touch()
    for process in (looker, neighbour):
        assert sorted(json.loads(await output(process))) == ["running", "waiting"]
    assert site.dump() == before
