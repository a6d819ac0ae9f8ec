"""`polos state` of the past, `polos fork`, `polos reset`, `polos count`: options and errors."""

import subprocess
import sys
from typing import Any

import pytest

from polos.cli.exits import Exit
from tests.cli.conftest import PROGRAM, SECONDS_MAX, Answer, Polos, Seeded

CHANGE = {"op": "replace", "path": "n", "old": 0, "new": 3}


def work(seeded: Seeded, execution_id: str) -> str:
    """Run what is queued in a process that has the code, until an execution has ended."""
    command = [sys.executable, str(PROGRAM), "work", seeded.url, execution_id]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, check=True)
    return ran.stdout.strip()


def fails(answer: Answer, code: Exit, *texts: str) -> None:
    """Check that a command refused, in one line, and printed nothing else."""
    assert (answer.code, answer.out) == (code, "")
    assert "Traceback" not in answer.err
    for text in texts:
        assert text in answer.err


def test_history_has_every_recorded_state(polos: Polos, seeded: Seeded) -> None:
    given = ("state", seeded.ids["completed"], "--history")
    lines = polos(*given, url=seeded.url).out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["SEQ", "STEP"],
        ["0", "(start)"],
        ["1", "answer"],
    ]
    assert lines[2].endswith("~ n: 0 → 3")
    found = polos(*given, "--json", url=seeded.url).document
    assert [(each["seq"], each["step_key"], each["state"]["n"]) for each in found] == [
        (0, None, 0),
        (1, "answer", 3),
    ]
    assert found[1]["changes"] == [CHANGE]


def test_a_past_state_is_that_of_a_step_an_entry_or_a_moment(polos: Polos, seeded: Seeded) -> None:
    id_ = seeded.ids["completed"]
    history = polos("state", id_, "--history", "--json", url=seeded.url).document
    for at, n in (("0", 0), ("1", 3), ("answer", 3), ("answer#2", 3), (history[1]["at"], 3)):
        answer = polos("state", id_, "--at", at, url=seeded.url)
        assert (answer.code, answer.document["n"]) == (Exit.OK, n), at
        assert polos("state", id_, "--at", at, "--json", url=seeded.url).document["n"] == n


def test_diff_and_blame_name_what_changed(polos: Polos, seeded: Seeded) -> None:
    id_ = seeded.ids["completed"]
    assert polos("state", id_, "--diff", "0", "answer", url=seeded.url).out == "~ n: 0 → 3\n"
    differ = polos("state", id_, "--diff", "0", "1", "--json", url=seeded.url)
    assert differ.document == [CHANGE]
    back = polos("state", id_, "--diff", "1", "0", "--json", url=seeded.url).document
    assert [(each["old"], each["new"]) for each in back] == [(3, 0)]
    assert polos("state", id_, "--diff", "1", "1", "--json", url=seeded.url).document == []
    blamed = polos("state", id_, "--blame", "n", url=seeded.url).out
    assert blamed.startswith("n = 3\n  step         answer\n")
    found = polos("state", id_, "--blame", "n", "--json", url=seeded.url).document
    assert (found["seq"], found["step_key"], found["attempt"]) == (1, "answer", 1)
    assert found["worker_id"]
    assert found["code_version"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--at", "99"], Exit.USAGE, "has states up to 1"),
        (["--at", "nope"], Exit.NOT_FOUND, "has no step 'nope'"),
        (["--at", "1999-01-01T00:00:00Z"], Exit.USAGE, "was started later"),
        (["--at", "2999-01-01"], Exit.USAGE, "offset from UTC"),
        (["--diff", "0", "nope"], Exit.NOT_FOUND, "has no step 'nope'"),
        (["--blame", "nope"], Exit.USAGE, "nothing was ever there"),
        (["--blame", "n["], Exit.USAGE, "cannot be read from character 2"),
        (["--at", "0", "--history"], Exit.USAGE, "takes one of"),
        (["--set", '{"n": 1}', "--at", "0"], Exit.USAGE, "takes one of"),
        (["--set", '{"n": 1}'], Exit.CONFLICT, "is completed"),
        (["--if-version", "1"], Exit.USAGE, "--set"),
    ],
)
def test_a_wrong_question_about_the_past_is_refused(
    polos: Polos, seeded: Seeded, arguments: list[str], code: Exit, text: str
) -> None:
    fails(polos("state", seeded.ids["completed"], *arguments, url=seeded.url), code, text)


@pytest.mark.slow
def test_a_fork_goes_on_with_another_state_and_payload(polos: Polos, seeded: Seeded) -> None:
    id_ = seeded.ids["completed"]
    given = ("--state", '{"n": 5}', "--payload", '{"n": 9}')
    forked = polos("fork", id_, "--at", "answer", *given, "--json", url=seeded.url).document
    assert forked["forked_from"] == {"execution_id": id_, "step_key": "answer"}
    assert (forked["payload"], forked["state"]["n"], forked["status"]) == ({"n": 9}, 5, "queued")
    plain = polos("fork", id_[-6:], "--at", "answer#2", url=seeded.url)
    assert (plain.code, plain.err) == (Exit.OK, "")
    work(seeded, plain.out.strip())
    work(seeded, forked["id"])
    found = polos("show", forked["id"], "--json", url=seeded.url).document
    # Its code sets n from the payload before the step, whose recorded state comes behind it.
    assert (found["status"], found["result"], found["state"]["n"]) == ("completed", {"n": 5}, 5)
    assert polos("state", id_, url=seeded.url).document["n"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ([], Exit.USAGE, "Missing option '--at'"),
        (["--at", "nope"], Exit.NOT_FOUND, "has no step 'nope'"),
        (["--at", "answer", "--state", "[1]"], Exit.USAGE, "expected a JSON object"),
        (["--at", "answer", "--state", "{"], Exit.USAGE, "is not JSON"),
        (["--at", "answer", "--state", '{"zzz": 1}'], Exit.USAGE, "no field 'zzz'"),
        (["--at", "answer", "--payload", "{"], Exit.USAGE, "is not JSON"),
    ],
)
def test_a_fork_that_cannot_be_stores_nothing(
    polos: Polos, seeded: Seeded, arguments: list[str], code: Exit, text: str
) -> None:
    fails(polos("fork", seeded.ids["completed"], *arguments, url=seeded.url), code, text)
    assert polos("count", "-w", "complete", "--json", url=seeded.url).document[0]["count"] == 1


@pytest.mark.parametrize("command", [["fork", "--at"], ["reset", "--to"]])
def test_going_back_in_an_unknown_execution_is_not_found(
    polos: Polos, seeded: Seeded, command: list[str]
) -> None:
    name, option = command
    fails(
        polos(name, "a8ca8b4dc25d", option, "x", url=seeded.url), Exit.NOT_FOUND, "does not exist"
    )


def reset(seeded: Seeded, *arguments: str, said: str | None = None) -> Answer:
    given = ["reset", seeded.ids["completed"], "--to", "answer", *arguments, "--url", seeded.url]
    ran = subprocess.run(
        [sys.executable, "-m", "polos.cli", *given],
        input=said,
        stdin=subprocess.DEVNULL if said is None else None,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Answer(ran.returncode, ran.stdout, ran.stderr)


PLAN = "1 step behind 'answer' goes\n  may happen again: run answer#2 (completed)\n"


@pytest.mark.slow
@pytest.mark.parametrize("said", ["n\n", "\n", "", None])
def test_a_reset_that_nobody_agrees_to_changes_nothing(seeded: Seeded, said: str | None) -> None:
    answer = reset(seeded, said=said)
    assert (answer.code, answer.out) == (Exit.FAILED, PLAN)
    assert "nothing was changed" in answer.err
    assert reset(seeded, "--dry-run").out == PLAN


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "said"), [([], "y\n"), (["-y"], None)])
def test_a_reset_lets_the_execution_go_on(
    polos: Polos, seeded: Seeded, arguments: list[str], said: str | None
) -> None:
    id_ = seeded.ids["completed"]
    answer = reset(seeded, *arguments, said=said)
    assert (answer.code, answer.out) == (Exit.OK, f"{PLAN}{id_} goes on behind 'answer'\n")
    shown = polos("show", id_, "--json", url=seeded.url).document
    assert (shown["status"], shown["result"], shown["retry_count"]) == ("queued", None, 1)
    assert work(seeded, id_) == "{'n': 3}"
    assert [
        each["step_key"] for each in polos("steps", id_, "--json", url=seeded.url).document
    ] == [
        "answer",
        "answer#2",
    ]


def test_a_reset_as_json_says_what_it_does_and_needs_a_yes(polos: Polos, seeded: Seeded) -> None:
    given = ("reset", seeded.ids["completed"], "--to", "answer", "--json")
    fails(polos(*given, url=seeded.url), Exit.USAGE, "give --yes")
    planned: dict[str, Any] = polos(*given, "--dry-run", url=seeded.url).document
    assert (planned["cut"], planned["steps"], planned["children"]) == (1, ["answer#2"], {})
    assert [each["step_key"] for each in planned["effects"]] == ["answer#2"]
    assert polos(*given, "--yes", url=seeded.url).document == planned


def test_a_reset_that_cannot_be_is_refused(polos: Polos, seeded: Seeded) -> None:
    given = ("reset", seeded.ids["completed"], "--yes")
    fails(polos(*given, url=seeded.url), Exit.USAGE, "Missing option '--to'")
    fails(polos(*given, "--to", "nope", url=seeded.url), Exit.NOT_FOUND, "has no step 'nope'")


def test_executions_are_counted_by_any_place(polos: Polos, seeded: Seeded) -> None:
    def count(*arguments: str) -> Any:
        return polos("count", *arguments, "--json", url=seeded.url).document

    assert count() == [{"group": None, "count": 6}]
    assert {each["group"]: each["count"] for each in count("--by", "status")} == {
        "completed": 1,
        "failed": 1,
        "waiting": 3,
        "cancelled": 1,
    }
    assert count("-w", "nap", "-s", "waiting") == [{"group": None, "count": 2}]
    assert count("--where", "state.n>=1", "--sum", "state.n") == [
        {"group": None, "count": 2, "sum": 4}
    ]
    by = count("--by", "workflow_id", "--sum", "state.n", "--where", "state.n exists")
    assert sorted((each["group"], each["sum"]) for each in by) == [("complete", 3), ("fragile", 1)]
    assert count("--where", "state.n=3", "--where", "status=failed") == [
        {"group": None, "count": 0}
    ]


def test_counts_are_a_table_for_people(polos: Polos, seeded: Seeded) -> None:
    answer = polos(
        "count", "--by", "state.n", "--sum", "state.n", "--where", "state.n exists", url=seeded.url
    )
    rows = [line.split() for line in answer.out.splitlines()]
    assert rows[0] == ["STATE.N", "COUNT", "SUM", "state.n"]
    assert sorted(rows[1:]) == [["1", "1", "1"], ["3", "1", "3"]]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--by", "bogus"], "'bogus' is no place"),
        (["--sum", "bogus"], "'bogus' is no place"),
        (["--where", "bogus"], "expected a place, an operator and a value"),
        (["--where", "bogus=1"], "'bogus' is no place"),
        (["--by", "state.n; DROP TABLE execution"], "cannot be read from character 8"),
        (["--by", "state.n' OR 1=1 --"], "cannot be read from character"),
        (["--status", "odd"], "'odd' is not one of"),
    ],
)
def test_a_wrong_count_is_a_usage_error(
    polos: Polos, seeded: Seeded, arguments: list[str], text: str
) -> None:
    fails(polos("count", *arguments, url=seeded.url), Exit.USAGE, text)
    assert polos("count", "--json", url=seeded.url).document == [{"group": None, "count": 6}]


@pytest.mark.parametrize("command", ["fork", "reset", "count"])
def test_the_help_has_an_example(polos: Polos, command: str) -> None:
    answer = polos(command, "--help")
    assert answer.code == 0
    assert f"  polos {command} " in answer.out
