"""Every bench still runs, on sizes that say nothing about speed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measures import NAMES
from bench.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
FIELDS = ["bench", "measure", "value", "unit", "raw", "against", "ratio", "target", "runs", "ok"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_bench_reports_all_of_its_measures(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", name, "--quick", "--runs", "1", "--dir"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(list(line) == FIELDS for line in lines)
    assert all(line["bench"] == name and line["runs"] for line in lines)
    assert {measure for bench, measure in TARGETS if bench == name} <= {
        line["measure"] for line in lines
    }
    assert list(tmp_path.iterdir()) == []


def test_every_target_belongs_to_a_bench() -> None:
    assert {bench for bench, _ in TARGETS} <= set(NAMES)
