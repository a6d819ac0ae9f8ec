"""The example: answered by its script, and by `polos resume` from another process."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 180
COMMAND = [sys.executable, "-m", "examples.approval"]


def test_the_script_answers(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/polos.db"
    ran = subprocess.run(
        [*COMMAND, "--answer", "--url", url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "paid, decided by Ann, Bo"


def test_people_answer_from_another_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/polos.db"
    with subprocess.Popen(
        [*COMMAND, "a lamp", "40", "--url", url], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            found = re.search(r"polos resume (\S+) accountant", process.stdout.readline())
            assert found
            answer = '{"approved": false, "approver": "Ann"}'
            subprocess.run(
                [
                    *(sys.executable, "-m", "polos.cli", "resume", found[1], "accountant"),
                    *("--data", answer, "--url", url),
                ],
                timeout=SECONDS_MAX,
                check=True,
                capture_output=True,
            )
            assert process.stdout.readline() == "rejected, decided by Ann\n"
            assert process.wait(SECONDS_MAX) == 0
        finally:
            process.kill()
