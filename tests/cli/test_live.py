"""The command as a process of its own, beside the one that runs the execution."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from tests.cli.conftest import PROGRAM, SECONDS_MAX, Live, Seeded

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "polos.cli"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def run(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments, "--url", url],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


@contextmanager
def running(*arguments: str, url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended_in_time(process):
        yield process


@contextmanager
def ended_in_time(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill a process that hangs, so that whoever reads from it goes on and fails."""
    alarm = threading.Timer(SECONDS_MAX, process.kill)
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
        process.kill()
        process.communicate()


class Terminal:
    """A command in a terminal of so many columns."""

    def __init__(self, *arguments: str, columns: int = 80, **settings: str) -> None:
        self._main, side = pty.openpty()
        self.seen = ""
        environment = os.environ | {"TERM": "xterm-256color", "LINES": "30"}
        environment["COLUMNS"] = str(columns)
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment | settings,
        )
        os.close(side)

    def say(self, line: str, *, after: str) -> None:
        """Type a line once a prompt is there."""
        self.press(f"{line}\n", after=after)

    def press(self, keys: str, *, after: str) -> None:
        """Press keys once a prompt is there."""
        self.read(after)
        self.seen = ""
        os.write(self._main, keys.encode())

    def read(self, until: str | None = None) -> str:
        """Read up to a text, or up to the end; return all that was seen, without colors."""
        while until is None or until not in self.plain:
            try:
                data = os.read(self._main, 65536)
            except OSError:  # the other side is closed: that is the end of a terminal
                break
            if not data:
                break
            self.seen += data.decode(errors="replace")
        return self.plain

    @property
    def plain(self) -> str:
        return ESCAPE.sub("", self.seen).replace("\r", "")

    def end(self) -> int:
        self.read()
        os.close(self._main)
        return self.process.wait(SECONDS_MAX)


@contextmanager
def terminal(*arguments: str, columns: int = 80, **settings: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments, columns=columns, **settings)
    with ended_in_time(opened.process):
        yield opened


def read_event(stream: IO[str] | None, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    assert stream is not None
    for line in stream:
        event = json.loads(line)
        if wanted(event):
            return event
    raise AssertionError("the command ended without the event")


def at_gate(event: dict[str, Any]) -> bool:
    return event["event"] == "step" and event["step"]["step_key"] == "gate"


def test_a_running_execution_is_listed_with_its_live_state(live: Live) -> None:
    with running("show", live.id, "--follow", "--json", url=live.url) as following:
        read_event(following.stdout, at_gate)
    listed = json.loads(run("list", "--json", url=live.url).stdout)
    assert [(each["id"], each["status"]) for each in listed] == [(live.id, "running")]
    assert json.loads(run("state", live.id, url=live.url).stdout)["n"] == 2
    statuses = {
        step["step_key"]: step["status"]
        for step in json.loads(run("steps", live.id, "--json", url=live.url).stdout)
    }
    assert statuses == {"first": "completed", "gate": "running"}
    assert live.process.poll() is None


@pytest.mark.parametrize(
    ("word", "status", "code"), [("go", "completed", 0), ("fail", "failed", 1)]
)
def test_follow_gives_a_json_line_for_every_change(
    live: Live, word: str, status: str, code: int
) -> None:
    with running("show", live.id, "--follow", "--json", url=live.url) as following:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        assert (first["event"], first["execution"]["id"]) == ("execution", live.id)
        assert read_event(following.stdout, at_gate)["step"]["status"] == "running"
        live.say(word)
        assert read_event(following.stdout, at_gate)["step"]["status"] == "completed"
        last = json.loads(following.stdout.readlines()[-1])
        assert following.wait(SECONDS_MAX) == code
    assert (last["event"], last["execution"]["status"]) == ("execution", status)


def test_follow_in_a_pipe_gives_a_line_for_every_step(live: Live) -> None:
    with running("show", live.id, "-f", url=live.url) as following:
        assert following.stdout is not None
        seen: list[str] = []
        while not seen or "gate" not in seen[-1]:
            seen.append(following.stdout.readline())
        live.say("go")
        seen += following.stdout.readlines()
        assert following.wait(SECONDS_MAX) == 0
    assert re.fullmatch(r"completed first \(.*\)\n", seen[0])
    assert f"execution {live.id} running\n" in seen
    assert seen[-1] == f"execution {live.id} completed\n"


def test_a_terminal_follows_to_the_end(live: Live) -> None:
    with terminal("show", live.id, "--url", live.url) as shown:
        shown.read(until="Ctrl-C leaves")
        live.say("go")
        assert shown.end() == 0
    final = shown.plain.rpartition("gated  ")[2]
    assert "✓ completed" in final
    assert '"go"' in final
    assert "Traceback" not in shown.plain


def test_ctrl_c_leaves_and_the_execution_goes_on(live: Live) -> None:
    with terminal("show", live.id[-8:], "--url", live.url) as shown:
        shown.read(until="gate")
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 130
    assert "Traceback" not in shown.plain
    assert "Abort" not in shown.plain
    live.say("go")
    assert live.end() == "go"


def test_no_follow_ends_at_once(live: Live) -> None:
    with terminal("show", live.id, "--no-follow", "--url", live.url) as shown:
        assert shown.end() == 0
    assert "● running" in shown.plain


def test_cancel_wait_returns_when_it_is_cancelled(live: Live) -> None:
    answer = run("cancel", live.id, "--wait", url=live.url)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout == f"{live.id} cancelled\n"
    assert live.end() == "ExecutionCancelledError"


def test_cancel_returns_at_once_and_the_owner_acts(live: Live) -> None:
    assert run("cancel", live.id, url=live.url).returncode == 0
    assert live.end() == "ExecutionCancelledError"
    assert run("cancel", live.id, url=live.url).returncode == 4


def test_retry_goes_on_from_the_failed_step(seeded: Seeded) -> None:
    failed = seeded.ids["failed"]
    before = json.loads(run("steps", failed, "--json", url=seeded.url).stdout)
    assert run("retry", failed, url=seeded.url).returncode == 0
    try:
        seeded.file.write_text("here it is")
        worker = subprocess.run(
            [sys.executable, str(PROGRAM), "work", seeded.url, failed],
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
    finally:
        seeded.file.unlink()
    assert worker.stdout == "here it is\n"
    after = json.loads(run("steps", failed, "--json", url=seeded.url).stdout)
    assert after[0] == before[0]
    assert [(step["step_key"], step["status"]) for step in after] == [
        ("before", "completed"),
        ("read", "completed"),
    ]
    found = json.loads(run("show", failed, "--json", url=seeded.url).stdout)
    assert (found["status"], found["error"], found["retry_count"]) == ("completed", None, 1)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_gets_colors_and_no_line_too_long(seeded: Seeded, columns: int) -> None:
    for arguments in (["list"], ["show", seeded.ids["failed"]], ["steps", seeded.ids["parent"]]):
        with terminal(*arguments, "--url", seeded.url, columns=columns) as shown:
            assert shown.end() == 0
        assert "\x1b[" in shown.seen
        assert max(map(len, shown.plain.splitlines())) <= columns
        assert "\x1b[31mno file" not in shown.seen


def test_a_short_id_of_a_narrow_terminal_is_taken(seeded: Seeded) -> None:
    with terminal("list", "-w", "complete", "--url", seeded.url) as shown:
        assert shown.end() == 0
    short = shown.plain.splitlines()[1].split()[0]
    assert seeded.ids["completed"].endswith(short)
    assert run("show", short, url=seeded.url).returncode == 0


def test_no_color_is_respected(seeded: Seeded) -> None:
    with terminal("list", "--url", seeded.url, NO_COLOR="1") as shown:
        assert shown.end() == 0
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9|10)\d", shown.seen)


def test_json_on_a_terminal_is_plain(seeded: Seeded) -> None:
    with terminal("list", "--json", "--url", seeded.url) as shown:
        assert shown.end() == 0
    assert len(json.loads(shown.seen)) == len(seeded.ids)


def test_a_reader_that_goes_away_is_no_error(seeded: Seeded) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [*COMMAND, "list", "--url", seeded.url],
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=SECONDS_MAX,
        check=False,
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import polos.cli.main"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr == "polos: typer and rich are not installed; pip install 'polos[cli]'\n"


def test_a_state_is_watched_until_the_end(live: Live) -> None:
    with running("state", live.id, "--watch", "--json", url=live.url) as watched:
        assert watched.stdout is not None
        first = json.loads(watched.stdout.readline())
        live.say("go")
        out, err = watched.communicate()
    lines = [first, *map(json.loads, out.splitlines())]
    recorded = json.loads(run("state", live.id, "--history", "--json", url=live.url).stdout)
    assert [each["state"] for each in lines] == [each["state"] for each in recorded[first["seq"] :]]
    assert (watched.returncode, err) == (0, "")
    shown = run("state", live.id, "--watch", url=live.url)
    assert json.loads(shown.stdout) == lines[-1]["state"]
    both = run("state", live.id, "--watch", "--at", "0", url=live.url)
    assert (both.returncode, "--watch" in both.stderr) == (2, True)
