"""`polos inbox` lists what is asked, `polos resume` answers it: by form, by JSON, on a terminal."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polos import PolosClient, WorkflowContext, workflow
from tests.cli.conftest import PROGRAM, SECONDS_MAX, Polos
from tests.cli.test_live import COMMAND, Terminal, terminal

pytestmark = pytest.mark.slow


@dataclass
class Asking:
    """An execution that asks, and nobody runs it."""

    url: str
    id: str

    def result(self) -> Any:
        """Let a process run it to its end."""
        return eval(program("work", self.url, self.id))


def program(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    url = f"sqlite:///{tmp_path}/polos.db"
    return Asking(url, program("ask", url, "approve"))


def test_the_inbox_lists_what_is_asked(asking: Asking, polos: Polos) -> None:
    listed = polos("inbox", url=asking.url)
    heading, line = listed.out.splitlines()
    assert heading.split() == ["ID", "WORKFLOW", "STEP", "SINCE", "TIMES", "OUT", "QUESTION"]
    assert asking.id in line
    assert "approve" in line
    assert "Deploy \\u001b[2J?" in line
    (found,) = polos("inbox", "--json", url=asking.url).document
    assert (found["execution_id"], found["step_key"]) == (asking.id, "approve")
    assert found["form"]["context"] == {"env": "prod"}
    assert polos("inbox", "--execution", asking.id[-8:], "--json", url=asking.url).document
    nothing = polos("inbox", "--workflow", "other", url=asking.url)
    assert (nothing.code, nothing.out, nothing.err.strip()) == (0, "", "nobody asks anything")


@pytest.fixture
async def many(tmp_path: Path) -> str:
    """Return the URL of a store where sixty executions ask."""

    @workflow(id="asks")
    async def asks(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("ok")

    url = f"sqlite:///{tmp_path / 'many.db'}"
    async with PolosClient(url) as client:
        for _ in range(60):
            await asks.invoke(client)
        while True:
            if len(await client.list_suspensions(limit=100)) == 60:
                return url
            await asyncio.sleep(0.01)


def test_the_inbox_has_all_that_is_open(many: str, polos: Polos) -> None:
    url = many
    assert len(polos("inbox", "--json", url=url).document) == 60
    assert len(polos("inbox", url=url).out.splitlines()) == 61
    assert len(polos("inbox", "--json", "--limit", "7", url=url).document) == 7


def test_an_answer_as_json(asking: Asking, polos: Polos) -> None:
    answer = ["--data", '{"approved": true, "by": "Ann"}']
    told = polos("resume", asking.id[-8:], "approve", *answer, "--json", url=asking.url)
    assert told.code == 0
    assert told.document["execution_id"] == asking.id
    assert told.document["early"] is False
    again = polos("resume", asking.id, "approve", *answer, url=asking.url)
    assert again.code == 4
    assert told.document["accepted_at"] in again.err.replace("\n", "")
    assert asking.result() == [{"approved": True, "by": "Ann", "share": 10}]


def test_the_step_may_be_left_out_if_one_is_open(asking: Asking, polos: Polos) -> None:
    told = polos("resume", asking.id, "--data", '{"by": "Ann"}', url=asking.url)
    assert (told.code, told.out) == (0, f"{asking.id} goes on behind 'approve'\n")
    nothing = polos("resume", asking.id, "--data", "1", url=asking.url)
    assert nothing.code == 4
    assert "asks nothing" in nothing.err


def test_what_does_not_fit_is_refused_and_it_still_waits(asking: Asking, polos: Polos) -> None:
    refused = polos("resume", asking.id, "approve", "--data", '{"share": "x"}', url=asking.url)
    assert refused.code == 2
    told = " ".join(refused.err.split())
    assert "by: required: expected a text" in told
    assert "share: expected a number from 0 to 100, not 'x'" in told
    assert len(polos("inbox", "--json", url=asking.url).document) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["approve", "--data", "yes"], 2, "is not JSON"),
        ([], 2, "no terminal to ask on"),
        (["other"], 4, "does not ask 'other'"),
    ],
)
def test_wrong_use_says_what_to_do(
    asking: Asking, arguments: list[str], code: int, why: str
) -> None:
    ran = subprocess.run(
        [*COMMAND, "resume", asking.id, *arguments, "--url", asking.url],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (code, "")
    assert why in " ".join(ran.stderr.split())


def test_an_unknown_execution_is_not_found(asking: Asking, polos: Polos) -> None:
    assert polos("resume", "unknown-id", "approve", "--data", "1", url=asking.url).code == 3


def test_an_answer_to_what_is_not_asked_yet_is_kept(tmp_path: Path, polos: Polos) -> None:
    url = f"sqlite:///{tmp_path}/polos.db"
    asking = Asking(url, program("ask", url, "one", "two"))
    kept = polos("resume", asking.id, "two", "--data", "2", url=url)
    assert kept.out == f"{asking.id} has not suspended with 'two' yet; the answer is kept\n"
    assert polos("resume", asking.id, "one", "--data", "null", url=url).code == 0
    assert asking.result() == [None, 2]


def on_terminal(asking: Asking) -> Any:
    return terminal("resume", asking.id, columns=100, POLOS_URL=asking.url)


def test_a_terminal_asks_for_one_field_after_the_other(asking: Asking) -> None:
    opened: Terminal
    with on_terminal(asking) as opened:
        opened.say("maybe", after="Approve [y/N]: ")
        opened.say("y", after="Approve [y/N]: ")
        opened.say("", after="Your name: ")
        opened.say("Ann", after="required: expected a text\nYour name: ")
        opened.say("200", after="Share (Enter for 10): ")
        opened.say("2.5", after="from 0 to 100, not 200\nShare (Enter for 10): ")
        opened.say("2", after="Region (1-2; may be left out): ")
        opened.say("1, c", after="Tags (1-3, several with commas; may be left out): ")
        opened.say("1234", after="PIN (may be left out): ")
        assert "1234" not in opened.read("Notes (")
        opened.say("one", after="left out): ")
        opened.say("two", after="  ")
        opened.say("", after="  ")
        shown = opened.read()
        assert opened.end() == 0
    assert "goes on behind 'approve'" in shown
    assert "\x1b[2J?" not in opened.seen
    assert asking.result() == [
        {
            "approved": True,
            "by": "Ann",
            "share": 2.5,
            "region": "us",
            "tags": ["a", "c"],
            "pin": "1234",
            "notes": "one\ntwo",
        }
    ]


def test_a_terminal_asks_again_for_what_was_meant_to_be_json(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/polos.db"
    asking = Asking(url, program("ask", url, "one"))
    opened: Terminal
    with on_terminal(asking) as opened:
        opened.say('{"go": yes}', after="Enter for {}): ")
        opened.say('{"go": true}', after="char 7)\nAnswer (JSON or a text; Enter for {}): ")
        opened.read()
        assert opened.end() == 0
    assert asking.result() == [{"go": True}]


def interrupt(opened: Terminal) -> None:
    """Send Ctrl-C; once more if it came before the terminal was listened to."""
    while opened.process.poll() is None:
        opened.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            opened.process.wait(5)


@pytest.mark.parametrize("by", ["Ctrl-C", "Ctrl-D"])
def test_who_leaves_the_prompts_has_sent_nothing(asking: Asking, by: str, polos: Polos) -> None:
    opened: Terminal
    with on_terminal(asking) as opened:
        opened.say("y", after="Approve [y/N]: ")
        if by == "Ctrl-D":
            opened.press("\x04", after="Your name: ")
        else:
            opened.read("Your name: ")
            interrupt(opened)
        assert "nothing was sent; it still waits" in opened.read()
        assert opened.end() == 130
    assert len(polos("inbox", "--json", url=asking.url).document) == 1
