"""Killing a process behind recorded steps and starting it again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.session import url_of
from bench.workflows import require


@dataclass(frozen=True)
class Restart:
    """Milliseconds of one restart."""

    total: float
    """From before the process was started until the first new body ran."""
    imports: float
    """Of these: starting the interpreter and importing Polos."""
    replay: float
    """Of these: from the first line of the workflow function to that body."""
    cpu: float
    """Of the processor, in all threads, from behind the imports to that body."""

    @property
    def resumed(self) -> float:
        """What Polos itself took: open, take over, read the journal, replay."""
        return self.total - self.imports


def restart(folder: Path, steps: int, kind: str) -> Restart:
    """Record steps in a process that is killed, start it again and return what that took."""
    command = [sys.executable, "-m", "bench.resumer"]
    # As with any program, the second process finds the modules compiled.
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    rest = [url_of(folder), str(steps), kind]
    died = subprocess.run([*command, "die", *rest], check=False, env=compiled)
    require(died.returncode, -signal.SIGKILL)
    spawned_ns = time.monotonic_ns()
    again = subprocess.run(
        [*command, "resume", *rest], check=True, stdout=subprocess.PIPE, env=compiled
    )
    seen = json.loads(again.stdout)
    require(seen["bodies"], 0)
    return Restart(
        total=(seen["reached_ns"] - spawned_ns) / 1e6,
        imports=(seen["imported_ns"] - spawned_ns) / 1e6,
        replay=(seen["reached_ns"] - seen["entered_ns"]) / 1e6,
        cpu=seen["cpu_ns"] / 1e6,
    )
