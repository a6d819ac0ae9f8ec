"""Everything a change must pass, in one command: `python -m tests.check [pytest arguments]`.

Stops at the first failure with that tool's exit code. pytest comes last, so that the closing
line is its count.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
# Two for each core: many tests wait for processes and servers. Each starts servers of its own.
WORKERS = min(2 * (os.cpu_count() or 1), 8)


def commands(pytest_args: list[str]) -> list[list[str]]:
    python = sys.executable
    return [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [python, "-m", "pyright", "--pythonpath", python],
        [str(BIN / "lint-imports")],
        [python, "-m", "pytest", "-n", str(WORKERS), "--dist=worksteal", "-q", *pytest_args],
    ]


def main(pytest_args: list[str]) -> int:
    # Without this pyright asks its registry for a newer release at every run.
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    for command in commands(pytest_args):
        print("$", shlex.join(command), flush=True)
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if code:
            print(f"failed with exit code {code}: {shlex.join(command)}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
