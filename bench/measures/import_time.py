"""What `import polos` costs a program that already uses asyncio, sqlite3 and pydantic."""

from __future__ import annotations

import statistics
import subprocess
import sys

from bench.report import Pair
from bench.session import Session

POLOS = "from polos import PolosClient, WorkflowState, workflow"
PLAIN = """
import asyncio, sqlite3
from pydantic import BaseModel
class Model(BaseModel):
    number: int = 0
"""
TIMED = """
import time
begun = time.perf_counter()
{}
print((time.perf_counter() - begun) * 1e3)
"""
PAIRS = 7


def imported_ms(code: str) -> float:
    """Run code in a fresh interpreter and return how long it took there."""
    command = [sys.executable, "-c", TIMED.format(code)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return float(done.stdout)


def measure(session: Session) -> None:
    """Measure in turns; a run is the median of some pairs, since processes differ so much."""
    imported_ms(POLOS)  # writes the .pyc files
    imported_ms(PLAIN)
    runs: list[Pair] = []
    for _ in range(session.runs):
        pairs = [(imported_ms(POLOS), imported_ms(PLAIN)) for _ in range(session.size(PAIRS, 1))]
        runs.append(
            (statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs))
        )
    session.report("polos", "ms", runs, "import asyncio, sqlite3; one BaseModel")
