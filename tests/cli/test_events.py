"""`polos events`: what it shows, what it publishes, and what it refuses."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from polos import PolosClient, events
from tests.cli.conftest import SECONDS_MAX, Polos, Seeded
from tests.cli.test_live import COMMAND, terminal


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """Return the URL of a store with a topic of fifteen events."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with PolosClient(url) as client:
        given = [events.EventData(event_type="tick", data={"n": n}) for n in range(1, 16)]
        await events.batch_publish(client, "clock", given)
    return url


def numbers(out: str) -> list[int]:
    return [json.loads(line)["sequence_id"] for line in out.splitlines()]


def test_tail_shows_the_last_ten_or_begins_behind_a_number(polos: Polos, url: str) -> None:
    tail = ("events", "tail", "clock", "--no-follow", "--json")
    assert numbers(polos(*tail, url=url).out) == list(range(6, 16))
    assert numbers(polos(*tail, "--after", "0", url=url).out) == list(range(1, 16))
    assert numbers(polos(*tail, "--after", "0", "--limit", "2", url=url).out) == [1, 2]
    assert numbers(polos(*tail, "--after", "2020-01-01", url=url).out) == list(range(1, 16))
    assert numbers(polos(*tail, "--after", "2100-01-01T00:00", url=url).out) == []


def test_tail_follows_until_it_has_enough(polos: Polos, url: str) -> None:
    answer = polos("events", "tail", "clock", "--after", "12", "-n", "3", url=url)
    lines = [line.split() for line in answer.out.splitlines()]
    assert [(line[0], line[2]) for line in lines] == [
        ("13", "tick"),
        ("14", "tick"),
        ("15", "tick"),
    ]
    assert '{"n": 15}' in answer.out


def test_tail_of_an_execution_ends_with_it(polos: Polos, seeded: Seeded) -> None:
    execution_id = seeded.ids["failed"]
    shown = json.loads(polos("show", execution_id, "--json", url=seeded.url).out)
    topic = f"workflow/{shown['workflow_id']}/{execution_id}"
    lines = polos("events", "tail", topic, "--json", url=seeded.url).out.splitlines()
    types = [json.loads(line)["event_type"] for line in lines]
    assert types[0] == "workflow_start"
    assert types[-1] == "workflow_failed"


def test_publish_prints_the_number(polos: Polos, url: str) -> None:
    publish = ("events", "publish", "clock", "--data")
    assert polos(*publish, '{"n": 16}', "--type", "tock", url=url).out == "clock 16\n"
    document = polos(*publish, "{}", "--json", url=url).document
    assert document == {"topic": "clock", "sequence_id": 17}
    shown = polos("events", "tail", "clock", "--no-follow", "--after", "15", "--json", url=url).out
    kinds = [
        (json.loads(line)["event_type"], json.loads(line)["data"])
        for line in shown.split("\n")[:-1]
    ]
    assert kinds == [("tock", {"n": 16}), (None, {})]


def test_topics_lists_them(polos: Polos, url: str) -> None:
    (topic,) = polos("events", "topics", "--json", url=url).document
    assert (topic["topic"], topic["last_sequence_id"], topic["events"]) == ("clock", 15, 15)
    assert "clock" in polos("events", "topics", url=url).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish", "clock", "--data", "[1]"),
        ("publish", "clock", "--data", "{"),
        ("publish", "", "--data", "{}"),
        ("publish", "clock"),
        ("tail", "clock", "--after", "soon"),
        ("tail", "clock", "--limit", "0"),
        ("tail", ""),
        ("tail", "x" * 2000, "--no-follow"),
    ],
)
def test_wrong_use_is_told(polos: Polos, url: str, arguments: tuple[str, ...]) -> None:
    answer = polos("events", *arguments, url=url)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("written", "why"),
    [(b"\xff\xfe", "no text"), (b"[" * 100_000, "nested too deeply"), (b"9" * 5000, "not JSON")],
)
def test_what_is_no_json_on_standard_input_is_told(url: str, written: bytes, why: str) -> None:
    ran = subprocess.run(
        [*COMMAND, "events", "publish", "clock", "--data", "-", "--url", url],
        input=written,
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert why in " ".join(ran.stderr.decode().split())


def test_an_execution_that_is_not_there_is_told(polos: Polos, url: str) -> None:
    assert polos("events", "tail", "workflow/wf/nobody", url=url).code == 3


@pytest.mark.slow
def test_a_terminal_gets_a_line_for_each_event_however_long(polos: Polos, url: str) -> None:
    words = " ".join(["word"] * 30)
    polos("events", "publish", "long", "--data", json.dumps({"text": words}), url=url)
    with terminal("events", "tail", "long", "--no-follow", "--url", url, columns=40) as opened:
        shown = opened.read()
        assert opened.end() == 0
    assert words in shown
