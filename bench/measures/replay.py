"""Replay alone: from the first line of the workflow function through recorded steps."""

from __future__ import annotations

import statistics

from bench.report import Pair
from bench.restart import restart
from bench.session import Session

SIZES = (10_000, 50_000)
RUNS_MAX = 3
"""Recording so many steps takes much longer than replaying them."""


def measure(session: Session) -> None:
    """Measure milliseconds per 1,000 steps, in a process that was just started."""
    for kind in ("plain", "state"):
        short = _replays(session, session.size(1000, 30), kind, session.runs)
        session.report(kind, "ms/1,000 steps", [(each, None) for each in short])
        usual = statistics.median(short)
        for size in SIZES:
            steps = session.size(size, size // 100)
            found = _replays(session, steps, kind, min(session.runs, RUNS_MAX))
            pairs: list[Pair] = [(each, usual) for each in found]
            session.report(f"{kind}_{size}", "ms/1,000 steps", pairs, "1,000 recorded steps")


def _replays(session: Session, steps: int, kind: str, runs: int) -> list[float]:
    found: list[float] = []
    for _ in range(runs):
        with session.fresh() as folder:
            found.append(restart(folder, steps, kind).replay * 1000 / steps)
    return found
