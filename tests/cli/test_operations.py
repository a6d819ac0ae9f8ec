"""`polos workers` and the refusals of `polos worker`; it at work is in tests/processes."""

import json
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from polos.cli.supervisor import pause_seconds
from tests.cli.conftest import Live, Polos, Seeded
from tests.cli.test_live import run as command

pytestmark = pytest.mark.slow


def test_a_live_worker_is_listed_with_what_it_owns(polos: Polos, live: Live) -> None:
    (found,) = polos("workers", "--json", url=live.url).document
    assert found["pid"] == live.process.pid
    assert (found["status"], found["takes_queue"]) == ("live", False)
    assert found["running"] + found["queued"] == 1
    assert "gated" in found["workflows"]
    assert found["last_beat_at"] >= found["started_at"][:19]
    assert found["stopped_at"] is None
    answer = polos("workers", url=live.url)
    heading, line = answer.out.splitlines()
    assert heading.split()[:5] == ["ID", "STATUS", "HOST", "PID", "SINCE"]
    assert line.split()[:2] == [found["id"], "live"]
    assert "gated" in line
    assert "DEPLOYMENT" not in heading


def test_a_dead_one_is_lost_until_somebody_takes_over(polos: Polos, live: Live) -> None:
    live.process.kill()
    live.process.wait()
    (found,) = polos("workers", "--json", url=live.url).document
    assert found["status"] == "lost"
    assert found["running"] + found["queued"] == 1
    assert polos("workers", url=live.url).out.splitlines()[1].split()[1] == "lost"


def test_stopped_ones_are_listed_on_request(polos: Polos, seeded: Seeded) -> None:
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute("UPDATE worker SET stopped_at = ?", (time.time_ns() // 1000,))
    nobody = polos("workers", url=seeded.url)
    assert (nobody.code, nobody.out) == (0, "")
    assert "no workers" in nobody.err
    assert polos("workers", "--json", url=seeded.url).document == []
    (found,) = polos("workers", "--all", "--json", url=seeded.url).document
    assert (found["status"], found["running"], found["queued"]) == ("stopped", 0, 0)
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute("UPDATE worker SET stopped_at = stopped_at - 90000000000")
    assert polos("workers", "--all", "--json", url=seeded.url).document == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument"),
        (["unheard_of_module"], "there is no module 'unheard_of_module'"),
        (["json"], "no workflow is registered there"),
        (["tests.processes.jobs:nothing"], "neither a workflow nor a list"),
        (["tests.processes.jobs", "--processes", "0"], "--processes"),
        (["tests.processes.jobs", "--concurrency", "0"], "--concurrency"),
        (["tests.processes.jobs", "--drain-seconds", "-1"], "--drain-seconds"),
        (["tests.processes.jobs", "--drain-seconds", "inf"], "drain_seconds=inf"),
        (["tests.processes.jobs", "--retention", "3y"], "retention='3y'"),
        (["tests.processes.jobs", "--event-retention", "3y"], "event_retention='3y'"),
        (["tests.processes.jobs", "--workflow", "unheard"], "'unheard' is not registered"),
        (["tests.processes.jobs", "--log-level", "loud"], "--log-level"),
        (["tests.processes.jobs"], "expected a URL"),
        (["tests.processes.jobs"], "in the memory of one process"),
    ],
)
def test_what_a_worker_cannot_do_is_a_usage_error(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    # In a process of its own: what a module registers stays registered.
    odd = {"expected a URL": "file.db", "in the memory of one process": "sqlite://"}
    url = odd.get(said, f"sqlite:///{tmp_path}/x.db")
    answer = command("worker", *arguments, url=url)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())


def test_the_pause_before_a_new_process_grows_up_to_a_limit() -> None:
    pauses = [pause_seconds(n) for n in (0, 1, 2, 3, 7, 8, 9, 10_000)]
    assert pauses == [0, 0.25, 0.5, 1, 16, 30, 30, 30]


def test_workers_as_json_are_one_document(polos: Polos, live: Live) -> None:
    assert len(json.loads(polos("workers", "--json", url=live.url).out)) == 1
