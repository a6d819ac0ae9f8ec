"""From the start of a process to the step behind 1,000 recorded ones, after a `kill -9`."""

from __future__ import annotations

from bench.raw import AGAINST_TIME, RawLog
from bench.report import Pair
from bench.restart import restart
from bench.session import Session

RAW_ROWS = 200


def measure(session: Session) -> None:
    """Measure less interpreter and imports, and in total."""
    steps = session.size(1000, 30)
    for kind in ("plain", "state"):
        resumed: list[Pair] = []
        total: list[Pair] = []
        cpu: list[Pair] = []
        for _ in range(session.runs):
            with session.fresh() as folder:
                found = restart(folder, steps, kind)
                rows = session.size(RAW_ROWS, 10)
                with RawLog(folder) as raw:
                    limit = raw.seconds(rows) / rows * 1e3
            resumed.append((found.resumed, limit))
            total.append((found.total, found.imports))
            cpu.append((found.cpu, None))
        session.report(kind, "ms", resumed, AGAINST_TIME)
        session.report(f"{kind}_cpu", "CPU ms", cpu)
        session.report(f"{kind}_in_total", "ms", total, "interpreter and imports")
