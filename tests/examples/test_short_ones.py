"""The examples of hooks and of long histories."""

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
