"""The example of secrets, blobs and portability, as its users run it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_contract_is_signed_elsewhere_and_nothing_is_in_clear(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "examples.contract", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = dict(line.split(maxsplit=1) for line in ran.stdout.splitlines()[:4])
    assert lines["key"] == lines["session"] == "**********"
    assert lines["result"].startswith("Ann, signed: ")
    assert ran.stdout.splitlines()[-1] == "in clear False"
