"""Workers killed, frozen, or cut off: others take over, the old ones write nothing."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.processes.postgres.places import Line, PostgresSite
from tests.processes.running import output, until

pytestmark = pytest.mark.slow


async def begun(site: PostgresSite, pid: int) -> float:
    return await until(lambda: f"begin {pid}" in site.effects())


def owners(site: PostgresSite) -> list[int]:
    found = site.rows(
        "SELECT w.pid FROM execution e JOIN worker w ON w.id = e.worker_id "
        "WHERE e.workflow_id = 'held'"
    )
    return [pid for (pid,) in found]


async def test_after_a_death_the_other_takes_over(site: PostgresSite) -> None:
    first = site.start("within")
    await begun(site, first.pid)
    second = site.start("within")  # waits for the same execution, by its idempotency key
    await until(lambda: site.workers(second.pid))
    assert f"begin {second.pid}" not in site.effects()
    first.kill()
    first.wait()
    print(f"taken over after {await begun(site, second.pid):.2f} s")
    site.let_go()
    assert json.loads(await output(second)) == second.pid
    assert Counter(site.effects()) == {
        "first": 1,
        f"begin {first.pid}": 1,
        f"begin {second.pid}": 1,
        f"end {second.pid}": 1,
        "last": 1,
    }
    assert site.owned() == []


async def goes_on_without(site: PostgresSite, first_pid: int, second_pid: int) -> None:
    """The first comes back: it writes nothing, seals, and enters under a new id."""
    await until(lambda: f"end {first_pid}" in site.effects() or len(site.workers(first_pid)) == 2)
    await until(lambda: len(site.workers(first_pid)) == 2)
    assert site.rows("SELECT turn FROM step WHERE key = 'body'") in ([], [(None,)])
    assert "last" not in site.effects()
    assert owners(site) == [second_pid]
    old, new = site.workers(first_pid)
    assert old[1] is not None
    assert new[1] is None


async def test_a_frozen_worker_is_noticed_by_its_beats_and_writes_nothing(
    site: PostgresSite,
) -> None:
    first = site.start("within")
    await begun(site, first.pid)
    second = site.start("within")
    await until(lambda: site.workers(second.pid))
    site.freeze(first.pid)
    try:
        seconds = await begun(site, second.pid)
        print(f"taken over after {seconds:.2f} s of a freeze")
        assert seconds > 5  # a freeze is no death
        site.let_go(first.pid)
    finally:
        site.thaw(first.pid)
    await goes_on_without(site, first.pid, second.pid)
    site.let_go()
    assert json.loads(await output(second)) == second.pid
    assert json.loads(await output(first)) == second.pid
    assert site.effects().count("last") == 1
    assert site.rows("SELECT body FROM step WHERE key = 'body'") == [(str(second.pid),)]
    assert site.owned() == []


def is_stopped(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[0] == "T"


async def test_a_worker_frozen_within_its_transaction_writes_nothing(site: PostgresSite) -> None:
    """Its statements are done, its commit is not sent: the server ends what it holds."""
    first = site.start("halting")
    await begun(site, first.pid)
    second = site.start("within")
    await until(lambda: site.workers(second.pid))
    site.let_go(first.pid)
    await until(lambda: is_stopped(first.pid))
    try:
        assert f"end {first.pid}" in site.effects()
        await begun(site, second.pid)
    finally:
        site.thaw(first.pid)
    await goes_on_without(site, first.pid, second.pid)
    site.let_go()
    assert json.loads(await output(second)) == second.pid
    assert json.loads(await output(first)) == second.pid
    assert site.effects().count("last") == 1
    assert site.rows("SELECT body FROM step WHERE key = 'body'") == [(str(second.pid),)]
    assert site.owned() == []


async def test_a_worker_that_is_cut_off_is_noticed_and_writes_nothing(site: PostgresSite) -> None:
    if site.socket is None:
        return  # the line leads to the socket of a server of one's own
    async with Line(site) as line:
        site.url = line.url()
        first = site.start("within")
        await begun(site, first.pid)
        site.url = site.plain_url
        second = site.start("within")
        await until(lambda: site.workers(second.pid))
        line.cut()
        site.let_go(first.pid)  # its body ends while nothing can be written
        await until(lambda: f"end {first.pid}" in site.effects())
        await begun(site, second.pid)
        line.mend()
        await goes_on_without(site, first.pid, second.pid)
        site.let_go()
        assert json.loads(await output(second)) == second.pid
        assert json.loads(await output(first)) == second.pid
    assert site.effects().count("last") == 1
    assert site.rows("SELECT body FROM step WHERE key = 'body'") == [(str(second.pid),)]
    assert site.owned() == []


async def test_two_workers_share_and_each_effect_happens_once(site: PostgresSite) -> None:
    processes = [site.start("work", name) for name in ("a", "b")]
    results = [json.loads(await output(process)) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(len(each) == 30 for each in results)
    done = Counter(line.split()[0] for line in site.effects())
    assert len(done) == 180
    assert set(done.values()) == {1}
    assert site.owned() == []


async def test_without_bells_everything_works_by_polling(site: PostgresSite) -> None:
    site.url += "&bells=off"
    processes = [site.start("work", name) for name in ("a", "b")]
    for process in processes:
        await output(process)
    assert [process.returncode for process in processes] == [0, 0]
    assert site.rows("SELECT count(*) FROM execution WHERE status <> 'completed'") == [(0,)]
    assert site.owned() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["within", "left", "serve"])
async def test_a_signal_leaves_nothing_behind(
    site: PostgresSite, mode: str, number: signal.Signals
) -> None:
    process = site.start(mode)
    await begun(site, process.pid)
    process.send_signal(number)
    site.let_go()  # a body that runs may end
    await output(process)
    if mode == "serve":
        assert process.returncode == 0
    assert site.owned() == []
    again = site.start("within")
    assert int(await output(again)) in {process.pid, again.pid}
    assert site.effects().count("first") == 1
    assert site.effects().count("last") == 1


@pytest.mark.parametrize("mode", ["left", "dropped"])
@pytest.mark.parametrize("host", [None, "127.0.0.1", "localhost"])
async def test_an_end_without_closing_hands_back_without_a_word(
    site: PostgresSite, mode: str, host: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONDEVMODE", "")
    if host is not None and site.socket is None:
        return
    async with Line(site) as line:
        if host is not None:
            site.url = line.url(host)
        if mode == "left":
            site.let_go()
        process = site.start(mode)
        await output(process)
        assert process.returncode == 0
    assert process.stderr is not None
    assert site.owned() == []
