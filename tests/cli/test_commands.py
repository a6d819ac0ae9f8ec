"""The commands on a database that nobody runs on: what they print, and how they end."""

import json
from pathlib import Path

import pytest

from polos import __version__
from tests.cli.conftest import Polos, Seeded

pytestmark = pytest.mark.slow


def test_list_shows_the_newest_first(polos: Polos, seeded: Seeded) -> None:
    answer = polos("list", url=seeded.url)
    assert answer.code == 0
    assert answer.err == ""
    heading, *lines = answer.out.splitlines()
    assert heading.split() == ["ID", "WORKFLOW", "STATUS", "CREATED", "TOOK", "NOTE"]
    shown = [line.split()[0] for line in lines]
    assert shown == sorted(seeded.ids.values(), reverse=True)


def test_in_a_pipe_there_are_no_colors_and_no_control_characters(
    polos: Polos, seeded: Seeded
) -> None:
    for command in (["list"], ["show", seeded.ids["failed"]], ["steps", seeded.ids["failed"]]):
        answer = polos(*command, url=seeded.url)
        assert all(line.isprintable() for line in answer.out.splitlines())
        assert r"\u001b[31mno file[/red]" in answer.out
        assert not any(line.endswith(" ") for line in answer.out.splitlines())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--workflow", "fragile"], ["failed"]),
        (["-w", "nap", "-s", "waiting"], ["child", "waiting"]),
        (["--status", "completed"], ["completed"]),
        (["--session", "s1"], ["waiting", "completed"]),
        (["--parent", "{parent}"], ["child"]),
        (["--root", "{parent}"], ["child", "parent"]),
        (["--limit", "2"], ["cancelled", "child"]),
        (["--before", "{waiting}"], ["failed", "completed"]),
        (["-n", "1", "--before", "{waiting}"], ["failed"]),
        (["--workflow", "unheard-of"], []),
    ],
)
def test_list_filters(
    polos: Polos, seeded: Seeded, options: list[str], expected: list[str]
) -> None:
    arguments = [option.format(**seeded.ids) for option in options]
    found = polos("list", *arguments, "--json", url=seeded.url).document
    assert [each["id"] for each in found] == [seeded.ids[name] for name in expected]


def test_an_empty_list_says_so_beside_standard_output(polos: Polos, seeded: Seeded) -> None:
    answer = polos("list", "-w", "unheard-of", url=seeded.url)
    assert (answer.code, answer.out, answer.err) == (0, "", "no executions here\n")


def test_every_command_prints_one_strict_json_document(polos: Polos, seeded: Seeded) -> None:
    ids = seeded.ids
    shown = polos("show", ids["completed"], "--json", url=seeded.url).document
    assert shown["status"] == "completed"
    assert shown["result"] == {"n": 3}
    assert shown["state"] == {"n": 3, "ratio": "Infinity", "notes": []}
    assert [step["step_key"] for step in shown["steps"]] == ["answer", "answer#2"]
    assert polos("steps", ids["completed"], "--json", url=seeded.url).document == shown["steps"]
    assert polos("state", ids["completed"], "--json", url=seeded.url).document == shown["state"]
    assert polos("state", ids["waiting"], "--json", url=seeded.url).document is None
    assert (
        polos("cancel", ids["waiting"], "--json", url=seeded.url).document["id"] == (ids["waiting"])
    )
    assert polos("retry", ids["failed"], "--json", url=seeded.url).document["status"] == "queued"


def test_show_has_state_steps_and_how_it_ended(polos: Polos, seeded: Seeded) -> None:
    done = polos("show", seeded.ids["completed"], url=seeded.url).out
    assert done.startswith("complete  completed\n")
    for part in (seeded.ids["completed"], "s1", "u1", '"ratio": "Infinity"', "answer#2", "Result"):
        assert part in done
    failed = polos("show", seeded.ids["failed"], url=seeded.url).out
    assert "\nerror    Step execution failed after 0 retries: " in failed
    child = polos("show", seeded.ids["child"], url=seeded.url).out
    assert f"\nparent    {seeded.ids['parent']} step 'child'\n" in child


def test_state_is_printed_as_json_for_people_too(polos: Polos, seeded: Seeded) -> None:
    answer = polos("state", seeded.ids["completed"], url=seeded.url)
    assert json.loads(answer.out) == {"n": 3, "ratio": "Infinity", "notes": []}
    without = polos("state", seeded.ids["waiting"], url=seeded.url)
    assert (without.code, without.out) == (0, "null\n")
    assert without.err == "workflow 'nap' has no state\n"


def test_following_one_that_has_ended_ends_at_once(polos: Polos, seeded: Seeded) -> None:
    codes = {"completed": 0, "failed": 1, "cancelled": 1}
    for name, code in codes.items():
        assert polos("show", seeded.ids[name], url=seeded.url).code == 0
        assert polos("show", seeded.ids[name], "--follow", url=seeded.url).code == code
        lines = polos("show", seeded.ids[name], "-f", "--json", url=seeded.url).out.splitlines()
        events = [json.loads(line) for line in lines]
        assert [events[0]["event"], events[-1]["event"]] == ["execution", "execution"]
        assert events[-1]["execution"]["status"] == name


def test_the_end_of_an_id_is_enough(polos: Polos, seeded: Seeded) -> None:
    target = seeded.ids["completed"]
    for given in (target[-6:], target[-12:].upper()):
        assert polos("show", given, "--json", url=seeded.url).document["id"] == target
    assert polos("show", target[-5:], url=seeded.url).code == 3


def test_options_may_stand_before_the_command(polos: Polos, seeded: Seeded) -> None:
    answer = polos("--url", seeded.url, "--json", "list", "--limit", "1")
    assert [each["id"] for each in answer.document] == [seeded.ids["cancelled"]]


def test_the_store_is_that_of_every_client(
    polos: Polos, seeded: Seeded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POLOS_URL", seeded.url)
    assert polos("state", seeded.ids["completed"]).code == 0
    monkeypatch.delenv("POLOS_URL")
    (tmp_path / "work" / ".polos").mkdir(parents=True)
    seeded.path.rename(tmp_path / "work" / ".polos" / "polos.db")
    monkeypatch.chdir(tmp_path / "work")
    assert polos("state", seeded.ids["completed"]).code == 0


def test_cancel_asks_once_and_is_done_by_who_runs_it(polos: Polos, seeded: Seeded) -> None:
    answer = polos("cancel", seeded.ids["waiting"], url=seeded.url)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"{seeded.ids['waiting']} is asked to cancel; it is queued\n"
    listed = polos("list", "-s", "queued", url=seeded.url).out
    assert "cancellation requested" in listed


def test_what_the_status_forbids_is_a_conflict(polos: Polos, seeded: Seeded) -> None:
    for command, name in (
        ("cancel", "completed"),
        ("cancel", "failed"),
        ("cancel", "cancelled"),
        ("retry", "completed"),
        ("retry", "waiting"),
    ):
        answer = polos(command, seeded.ids[name], url=seeded.url)
        assert (answer.code, answer.out) == (4, "")
        assert seeded.ids[name] in answer.err
        assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", ["show", "state", "steps", "cancel", "retry"])
@pytest.mark.parametrize("given", ["01a204f4-bf49-7c34-ac32-a8ca8b4dc25d", "a8ca8b4dc25d", "x"])
def test_an_unknown_id_is_not_found(polos: Polos, seeded: Seeded, command: str, given: str) -> None:
    answer = polos(command, given, url=seeded.url)
    assert (answer.code, answer.out) == (3, "")
    assert answer.err.startswith(f"polos: execution {given!r} does not exist")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["show"],
        ["list", "--limit", "0"],
        ["list", "--status", "odd"],
        ["list", "--unheard-of"],
        ["list", "--url", "file.db"],
        ["list", "--url", "sqlite://"],
        ["list", "--url", "http://localhost:1"],
        ["list", "--url", "sqlite:///x.db?odd=1"],
        [],
    ],
)
def test_a_wrong_command_line_is_a_usage_error(
    polos: Polos, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = polos(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.err
    assert not list(tmp_path.iterdir())


def test_version(polos: Polos) -> None:
    assert polos("--version").out == f"polos {__version__}\n"


@pytest.mark.parametrize("command", ["list", "show", "state", "steps", "cancel", "retry"])
def test_the_help_of_every_command_has_an_example(polos: Polos, command: str) -> None:
    answer = polos(command, "--help")
    assert answer.code == 0
    assert f"  polos {command} " in answer.out
