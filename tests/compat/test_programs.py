"""The programs print what they print with the reference, on every kind of store."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres import NAMES, fresh_url, stop_servers

__all__ = ["stop_servers"]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 180
EXPECTED = {
    "basics": """\
in a step
HELLO ANN?! 42
after 3
{'uuid': True, 'now': True, 'random': True}
1 [{'a': 1}, {'ü': 0}]
""",
    "suspending": """\
manager r-1 12.5
approve? completed {'id': 'r-1', 'status': 'approved', 'comments': 'as ever'}
review_0_Ann? review_0_Ann
review_1_Bö? review_1_Bö
review_2_Cy? review_2_Cy
rejected Ann:True,Bö:True,Cy:False
""",
    "state": """\
1
5
-2
0
{'count': 105, 'log': ['up']}
{'items': 1, 'total': 25.0}
{'items': 2, 'total': 75.0}
""",
    "errors": """\
caught: Step execution failed after 1 retries: primary is down
backup spare
['failed', 'failed', 'skipped', 'skipped']
undone ['charge', 'reserve'] Step execution failed after 1 retries: no van
Workflow execution failed: Step execution failed after 0 retries: nobody catches this
""",
    "reviewing": """\
broken failed: Step execution failed after 0 retries: division by zero
2 True
Über 6.0 [{'reviewer': 'grammar', 'score': 8}, {'reviewer': 'facts', 'score': 4}]
""",
    "triggered": """\
user/signup created Ünal
[0, 1, 2]
1 [1, 2, 3]
{'topic': 'jobs/done', 'type': 'job_done', 'data': {'job': 0}}
""",
}
ANSWERS = {"suspending": "y\ny\ny\nn\n"}


@pytest.fixture(params=["sqlite", NAMES[-1]])
def environment(tmp_path: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    name = request.param
    url = fresh_url(name) if name in NAMES else f"sqlite:///{tmp_path}/polos.db"
    return os.environ | {
        "POLOS_URL": url,
        "POLOS_LOCAL_MODE": "true",
        "POLOS_PROJECT_ID": "11111111-1111-1111-1111-111111111111",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_prints_what_the_reference_prints(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", f"tests.compat.programs.{name}"],
        cwd=tmp_path,
        env=environment,
        input=ANSWERS.get(name, ""),
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS_MAX,
        check=False,
    )
    assert (ran.stdout, ran.stderr, ran.returncode) == (EXPECTED[name], "", 0)


def test_a_form_is_answered_on_the_command_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    def resume(execution_id: str, data: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                *(sys.executable, "-m", "polos.cli", "resume", execution_id, "approve"),
                *("--data", data),
            ],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS_MAX,
            check=False,
        )

    with subprocess.Popen(
        [sys.executable, "-m", "tests.compat.programs.page"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            assert process.stdout is not None
            shown = process.stdout.readline()
            assert shown == "Expense ['approved', 'note', 'account'] {'amount': 40.0}\n"
            found = re.fullmatch(r"answer (\S+)\n", process.stdout.readline())
            assert found
            unfit = '{"approved": true, "account": "c"}'
            assert "account: expected one of" in resume(found[1], unfit).stderr
            assert resume(found[1], '{"approved": true, "note": "für Ann"}').returncode == 0
            assert process.stdout.readline() == "{'status': 'paid', 'note': 'für Ann'}\n"
            assert process.wait(SECONDS_MAX) == 0
        finally:
            process.kill()
