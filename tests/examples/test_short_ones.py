"""The examples of hooks, of long histories and of plain functions."""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("module", "arguments", "printed"),
    [
        ("hooks", ["19.999"], "charged 20.0 (signed)\n"),
        ("long_history", ["--pages", "35"], "245 lines of 35 pages, in 4 runs\n"),
    ],
)
def test_it_prints_what_it_says(
    tmp_path: Path, module: str, arguments: list[str], printed: str
) -> None:
    command = [sys.executable, "-m", f"examples.{module}", "--url", f"sqlite:///{tmp_path}/a.db"]
    ran = subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", printed)


def test_hooks_refuse_what_cannot_be_charged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.hooks", "--url", f"sqlite:///{tmp_path}/a.db"]
    ran = subprocess.run(
        [*command, "--", "-5"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.startswith("refused: ")
    assert "an amount of -5 cannot be charged" in ran.stdout


def test_a_plain_function_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(30):
        (folder / f"{n:02}.txt").write_text(f"file {n}\n", encoding="utf-8")
    url = f"sqlite:///{tmp_path}/a.db"
    command = [sys.executable, "-m", "examples.plain", str(folder), "--url", url]
    process = subprocess.Popen([*command, "--slow", "0.05"], cwd=ROOT)
    read = "SELECT key FROM step WHERE key LIKE 'read %' AND ok"
    while len(recorded(tmp_path / "a.db", read)) < 5:
        assert process.poll() is None
    process.kill()
    process.wait()
    before = recorded(tmp_path / "a.db", read)
    assert len(before) < 30
    (folder / "00.txt").write_text("changed since", encoding="utf-8")  # it is not read again
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("30 files, 230 bytes, ")
    assert (
        recorded(tmp_path / "a.db", "SELECT key FROM step WHERE key LIKE 'read %'")[: len(before)]
        == before
    )


def recorded(path: Path, query: str) -> list[tuple[str]]:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # it is not there yet
        return []
