"""Orderly ends: after SIGTERM and Ctrl-C nothing in the file is marked as running, or as owned."""

import signal

import pytest

from tests.processes.running import Site, output, until


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["within", "left", "serve"])
async def test_a_signal_leaves_nothing_behind(
    site: Site, mode: str, number: signal.Signals
) -> None:
    process = site.start(mode)
    await until(lambda: f"begin {process.pid}" in site.effects())
    await until(lambda: site.rows("SELECT 1 FROM execution WHERE status = 'waiting'"))
    process.send_signal(number)
    (site.folder / "go").touch()  # a body that runs may end
    await output(process)
    assert process.returncode is not None
    if mode == "serve":
        assert process.returncode == 0
    elif number is signal.SIGTERM:
        assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    else:
        assert process.returncode in (-signal.SIGINT, 130, 1)
    assert site.owned() == []
    statuses = {status for _, status in site.rows("SELECT id, status FROM execution")}
    assert statuses <= {"queued", "waiting", "completed"}
    # And the next one goes on with it.
    again = site.start("within")
    out = await output(again)
    assert int(out) in {process.pid, again.pid}
    assert site.effects().count("first") == 1
    assert site.effects().count("last") == 1


async def test_an_end_without_closing_hands_back(site: Site) -> None:
    (site.folder / "go").touch()
    process = site.start("left")
    assert int(await output(process)) == process.pid
    assert process.returncode == 0
    assert site.owned() == []
    assert site.rows("SELECT workflow_id, status FROM execution ORDER BY 1") == [
        ("asleep", "waiting"),
        ("held", "completed"),
    ]


async def test_an_end_with_a_step_running_leaves_nothing_running(site: Site) -> None:
    process = site.start("dropped")
    await output(process)
    assert process.returncode == 0
    assert site.owned() == []
    (site.folder / "go").touch()
    again = site.start("within")
    assert int(await output(again)) == again.pid
    assert site.effects().count("last") == 1
