"""The example as its users have it: a process, and the command beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_story_is_read_while_it_is_written_and_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/story.db"
    lines = run("examples.streaming", "--slow", "0", "--url", url).splitlines()
    assert lines[1] == "A durable program went to sleep at noon. … (again)"
    assert lines[2].startswith("A durable program")
    assert lines[2].endswith("of a sentence. ")
    assert lines[3] == "21 letters; [{'done': 'story'}, {'done': 'letters'}]"
    execution_id = lines[0].split()[1]
    printed = run("polos.cli", "stream", execution_id, "--step", "story", "--url", url)
    assert printed.splitlines()[-1] == lines[2]
