"""`polos db`: what a store holds, removing what is old, giving space back."""

import time
from contextlib import closing
from typing import Any

import apsw
import pytest

from tests.cli.conftest import Live, Polos, Seeded
from tests.cli.test_live import terminal

pytestmark = pytest.mark.slow

DAY = 86_400_000_000


def age(seeded: Seeded, name: str, days: float) -> None:
    """Let an execution have ended so many days ago."""
    now = time.time_ns() // 1000
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute(
            "UPDATE execution SET completed_at = ? WHERE id = ?",
            (now - round(days * DAY), seeded.ids[name]),
        )


def left(polos: Polos, seeded: Seeded) -> set[str]:
    listed = polos("list", "-n", "1000", "--json", url=seeded.url).document
    names = {id: name for name, id in seeded.ids.items()}
    return {names[each["id"]] for each in listed}


def rows(seeded: Seeded, table: str) -> list[Any]:
    with closing(apsw.Connection(str(seeded.path))) as connection:
        return connection.execute(f"SELECT DISTINCT root_id FROM {table}").fetchall()


EVERYTHING = {"completed", "failed", "cancelled", "waiting", "parent", "child"}


def test_stats_say_what_is_there(polos: Polos, seeded: Seeded) -> None:
    found = polos("db", "stats", "--json", url=seeded.url).document
    assert found["executions"] == {
        "complete": {"completed": 1},
        "fragile": {"failed": 1},
        "nap": {"cancelled": 1, "waiting": 2},
        "parent": {"waiting": 1},
    }
    tables = {each["name"]: each for each in found["tables"]}
    assert set(tables) >= {"execution", "inbox", "state", "step", "worker", "wait", "event"}
    assert tables["execution"]["rows"] == 6
    assert tables["execution"]["bytes"] >= 4096
    assert found["sizes"]["database"] == seeded.path.stat().st_size
    assert found["oldest"] <= found["newest"]
    assert found["live_workers"] == 0
    answer = polos("db", "stats", url=seeded.url)
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["WORKFLOW", "WAITING", "COMPLETED", "FAILED", "CANCELLED", "ALL"] in lines
    assert ["nap", "2", "0", "0", "1", "3"] in lines
    assert ["all", "3", "1", "1", "1", "6"] in lines
    assert answer.err == ""


def test_stats_count_live_workers(polos: Polos, live: Live) -> None:
    assert polos("db", "stats", "--json", url=live.url).document["live_workers"] == 1


def test_prune_removes_what_is_older(polos: Polos, seeded: Seeded) -> None:
    age(seeded, "completed", 31)
    age(seeded, "failed", 29)
    answer = polos("db", "prune", "--older-than", "30d", "--json", url=seeded.url)
    assert answer.document == {"trees": 1, "executions": 1, "rows": 5, "blobs": 0, "dry_run": False}
    assert answer.err == ""
    assert left(polos, seeded) == EVERYTHING - {"completed"}
    assert (seeded.ids["completed"],) not in rows(seeded, "step") + rows(seeded, "state")
    assert (seeded.ids["failed"],) in rows(seeded, "step")
    assert polos("show", seeded.ids["completed"], url=seeded.url).code == 3


def test_a_dry_run_removes_nothing(polos: Polos, seeded: Seeded) -> None:
    age(seeded, "completed", 31)
    before = seeded.path.read_bytes()
    answer = polos("db", "prune", "--older-than", "30d", "--dry-run", url=seeded.url)
    assert answer.out == "would be removed: 1 tree, 1 execution, 5 rows\n"
    assert seeded.path.read_bytes() == before
    assert left(polos, seeded) == EVERYTHING


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ([], {"completed", "failed", "cancelled"}),
        (["--status", "failed"], {"failed"}),
        (["-s", "failed", "-s", "cancelled"], {"failed", "cancelled"}),
        (["--workflow", "complete"], {"completed"}),
        (["-w", "complete", "-w", "nap"], {"completed", "cancelled"}),
        (["-w", "nap", "-s", "completed"], set[str]()),
        (["-w", "unheard-of"], set[str]()),
        (["--batch", "1"], {"completed", "failed", "cancelled"}),
    ],
)
def test_prune_takes_what_its_options_name(
    polos: Polos, seeded: Seeded, options: list[str], gone: set[str]
) -> None:
    for name in ("completed", "failed", "cancelled"):
        age(seeded, name, 2)
    answer = polos("db", "prune", "--older-than", "1d", *options, url=seeded.url)
    assert answer.code == 0
    plural = "" if len(gone) == 1 else "s"
    assert answer.out.startswith(f"removed: {len(gone)} tree{plural}, {len(gone)} execution")
    assert left(polos, seeded) == EVERYTHING - gone


@pytest.mark.parametrize(
    "options",
    [
        *([], ["--older-than", "soon"], ["--older-than", "forever"], ["--older-than", "0s"]),
        ["--older-than", "1d", "--status", "running"],
        ["--older-than", "1d", "--batch", "0"],
    ],
)
def test_a_wrong_prune_removes_nothing(polos: Polos, seeded: Seeded, options: list[str]) -> None:
    age(seeded, "completed", 31)
    answer = polos("db", "prune", *options, url=seeded.url)
    assert (answer.code, answer.out) == (2, "")
    assert left(polos, seeded) == EVERYTHING


def test_with_mode_ro_nothing_is_removed(polos: Polos, seeded: Seeded) -> None:
    age(seeded, "completed", 31)
    url = f"{seeded.url}?mode=ro"
    for arguments in (["prune", "--older-than", "1d"], ["vacuum"]):
        answer = polos("db", *arguments, url=url)
        assert (answer.code, answer.out) == (6, "")
        assert "mode=ro" in answer.err
    assert polos("db", "prune", "--older-than", "1d", "--dry-run", url=url).code == 0
    assert left(polos, seeded) == EVERYTHING


def test_vacuum_makes_the_file_smaller(polos: Polos, seeded: Seeded) -> None:
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute("CREATE TABLE big (x)")
        connection.execute("INSERT INTO big VALUES (zeroblob(3000000))")
        connection.execute("DROP TABLE big")
    answer = polos("db", "vacuum", "--json", url=seeded.url)
    assert answer.document["bytes_before"] - answer.document["bytes_after"] > 2_900_000
    assert seeded.path.stat().st_size == answer.document["bytes_after"]
    assert left(polos, seeded) == EVERYTHING
    again = polos("db", "vacuum", url=seeded.url)
    assert again.code == 0
    assert again.out.endswith(" after\n")


def test_beside_a_process_that_works(polos: Polos, live: Live) -> None:
    """What it runs stays, and goes on."""
    assert polos("db", "prune", "--older-than", "1s", url=live.url).code == 0
    assert polos("db", "vacuum", url=live.url).code == 0
    assert polos("db", "stats", url=live.url).code == 0
    live.say("go")
    assert live.end() == "go"


def test_a_terminal_shows_how_far_it_is(seeded: Seeded) -> None:
    for name in ("completed", "failed", "cancelled"):
        age(seeded, name, 2)
    with terminal("db", "prune", "--older-than", "1d", "--url", seeded.url) as opened:
        assert opened.end() == 0
        seen = opened.plain
    assert "removing" in seen
    assert "3/3" in seen
    assert "removed: 3 trees, 3 executions" in seen


def test_the_help_has_examples(polos: Polos) -> None:
    for command in (["db", "stats"], ["db", "prune"], ["db", "vacuum"], ["worker"], ["workers"]):
        answer = polos(*command, "--help")
        assert answer.code == 0
        assert f"  polos {' '.join(command)}" in answer.out
    assert polos("db").code == 2
