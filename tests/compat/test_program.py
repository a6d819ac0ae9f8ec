"""A program in the shape of those that were written for the reference SDK runs unchanged."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("program.py")


@pytest.mark.slow
def test_it_prints_what_it_prints_there(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(PROGRAM)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "True False",
        "{'count': 5}",
        "{'count': 105}",
        "{'error': 'Step execution failed after 1 retries: boom 1'}",
        "[0, 2, 4]",
    ]
