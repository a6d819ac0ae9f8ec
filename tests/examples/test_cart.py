"""The example: two customers, one failure, one old cart."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 180


def test_the_carts_hold_what_was_put_into_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.cart", "--url", f"sqlite:///{tmp_path}/polos.db"]
    for _ in range(2):
        ran = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=True
        )
        assert ran.stdout.splitlines() == [
            "refused: Workflow execution failed: Step execution failed after 0 retries: there are "
            "no unicorns",
            "ann: {'lamp': 1, 'bulb': 2}",
            "bob: {'lamp': 3, 'bulb': 2}",
        ]
