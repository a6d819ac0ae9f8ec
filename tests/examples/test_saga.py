"""The saga example: one that ends well, and one that is undone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *options: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.saga", "--url", f"sqlite:///{folder}/polos.db", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.mark.slow
def test_a_trip_is_booked(tmp_path: Path) -> None:
    assert run(tmp_path) == [
        "paid 700",
        "booked hotel",
        "booked car",
        "booked flight",
        "done: receipt over 700",
    ]


@pytest.mark.slow
def test_a_trip_is_undone(tmp_path: Path) -> None:
    assert run(tmp_path, "--full", "flight") == [
        "paid 700",
        "booked hotel",
        "booked car",
        "cancelled car-1",
        "cancelled hotel-1",
        "paid back: receipt over 700",
        "undone: Step execution failed after 0 retries: no flight left; left: []",
    ]
