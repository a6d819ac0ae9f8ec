"""The example as its users have it: a process, twice on the same store."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_orders_are_shipped_when_they_are_paid(tmp_path: Path) -> None:
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-m", "examples.events", "--url", f"sqlite:///{tmp_path}/shop.db"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        lines = ran.stdout.splitlines()
        assert lines[0] == "3 orders wait for their payment"
        assert sorted(lines[1:4]) == [
            "order 1: shipped",
            "order 2: cancelled",
            "order 3: shipped",
        ]
        assert lines[4] == "booked 4 payments, 138 in all"
