"""Databases that cannot be used: each with its message and exit code 6, and left as it was."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from tests.cli.conftest import Polos, Seeded

pytestmark = pytest.mark.slow

ID = "01a204f4-bf49-7c34-ac32-a8ca8b4dc25d"
COMMANDS = [["list"], ["show", ID], ["state", ID], ["steps", ID], ["cancel", ID], ["retry", ID]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_database_is_not_created(
    polos: Polos, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (None, "sqlite:///deep/in/file.db", "sqlite:///file.db?mode=rwc"):
        answer = polos(*command, url=url)
        assert (answer.code, answer.out) == (6, "")
        assert answer.err.startswith("polos: no database at ")
        assert answer.err.endswith("; run a workflow first, or pass --url\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_newer_schema_is_refused(polos: Polos, seeded: Seeded, command: list[str]) -> None:
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute("PRAGMA user_version = 999")
    answer = polos(*command, url=seeded.url)
    assert (answer.code, answer.out) == (6, "")
    assert "newer release of Polos (schema 999" in answer.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", ["nothing", "another program's"])
def test_a_file_that_is_not_ours_is_not_touched(
    polos: Polos, command: list[str], content: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.db"
    path.touch()
    if content == "another program's":
        with closing(apsw.Connection(str(path))) as connection:
            connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    answer = polos(*command, url=f"sqlite:///{path}")
    assert (answer.code, answer.out) == (6, "")
    assert "not a database that this release of Polos has worked with" in answer.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_file_says_so(polos: Polos, command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("This is not a database at all.\n" * 100)
    answer = polos(*command, url=f"sqlite:///{path}")
    assert (answer.code, answer.out) == (6, "")
    assert "not a healthy SQLite database" in answer.err


def test_a_folder_is_not_a_database(polos: Polos, tmp_path: Path) -> None:
    answer = polos("list", url=f"sqlite:///{tmp_path}")
    assert (answer.code, answer.out) == (6, "")


def test_with_mode_ro_it_looks_and_asks_for_nothing(polos: Polos, seeded: Seeded) -> None:
    url = f"{seeded.url}?mode=ro"
    assert polos("list", url=url).code == 0
    assert polos("show", seeded.ids["waiting"], "--no-follow", url=url).code == 0
    for command in ("cancel", "retry"):
        answer = polos(command, seeded.ids["failed"], url=url)
        assert (answer.code, answer.out) == (6, "")
        assert "mode=ro" in answer.err


def test_a_writer_in_the_way_stops_changes_but_nobody_who_looks(
    polos: Polos, seeded: Seeded
) -> None:
    url = f"{seeded.url}?busy_timeout=0.05"
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert polos("list", url=url).code == 0
        assert polos("state", seeded.ids["completed"], url=url).code == 0
        for command, name in (("cancel", "waiting"), ("retry", "failed")):
            answer = polos(command, seeded.ids[name], url=url)
            assert (answer.code, answer.out) == (6, "")
            assert "another process keeps the database locked" in answer.err
    assert polos("cancel", seeded.ids["waiting"], url=url).code == 0


def test_a_database_that_somebody_keeps_for_himself_is_locked(polos: Polos, seeded: Seeded) -> None:
    with closing(apsw.Connection(str(seeded.path))) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        for command in COMMANDS:
            answer = polos(*command, url=f"{seeded.url}?busy_timeout=0.05")
            assert (answer.code, answer.out) == (6, "")
            assert "another process keeps the database locked" in answer.err


def test_looking_changes_no_byte_of_the_database(polos: Polos, seeded: Seeded) -> None:
    before = seeded.path.read_bytes()
    for command in (["list"], ["show", seeded.ids["completed"]], ["steps", seeded.ids["failed"]]):
        assert polos(*command, url=seeded.url).code == 0
    assert seeded.path.read_bytes() == before
