"""The examples of state: its past, those who watch it and count it, and new schemas."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60


def run(module: str, tmp_path: Path) -> list[str]:
    """Run an example twice on one store; returns the lines of the second time."""
    command = [sys.executable, "-m", f"examples.{module}", "--url", f"sqlite:///{tmp_path}/a.db"]
    printed = ""
    for _ in range(2):
        ran = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        printed = ran.stdout
    return printed.splitlines()


def test_a_trip_is_patched_forked_and_gone_through_again(tmp_path: Path) -> None:
    assert run("rewind", tmp_path) == [
        "trip: train + hotel + museum for 318 of 400",
        "  0 -       ",
        "  1 hotel   booked[0] = train, cost = 60",
        "  2 agree   booked[1] = hotel, cost = 300",
        "  3 -       budget = 400 by ann (a bonus)",
        "  4 -       booked[2] = museum, cost = 318",
        "  as of the hotel: {'booked': ['train'], 'cost': 60, 'budget': 300}",
        "  hotel came with 'agree', in attempt 1",
        "fork with less money: train + hotel for 300 of 310",
        "a reset would do again: ['museum']",
        "after the reset: train + hotel + museum for 318 of 400",
        "cut off, and kept: ['museum']",
    ]


def test_orders_are_watched_counted_and_summed(tmp_path: Path) -> None:
    lines = run("dashboard", tmp_path)
    assert lines[-5] == "[##############] 14/14"
    assert lines[-4:] == [
        "ann     4 orders    35.00",
        "bob     2 orders    25.00",
        "cleo    2 orders    10.00",
        "large: ann, bob",
    ]


def test_old_state_goes_on_with_new_code(tmp_path: Path) -> None:
    assert run("evolving", tmp_path) == [
        "ann, version 1: {'price': '9.90 EUR', 'months': 1}",
        "bob, version 1: {'price': '9.90 EUR', 'months': 1}",
        "ann paid 2 months at 990 cents EUR",
        "  version 2: {'cents': 990, 'currency': 'EUR', 'months': 2}",
        "bob paid 2 months at 990 cents EUR",
        "  version 2: {'cents': 990, 'currency': 'EUR', 'months': 2}",
    ]
