"""Replay alone: from the first line of the workflow function through 1,000 recorded steps."""

from __future__ import annotations

from bench.report import Pair
from bench.restart import restart
from bench.session import Session


def measure(session: Session) -> None:
    """Measure milliseconds per 1,000 steps, in a process that was just started."""
    steps = session.size(1000, 30)
    for kind in ("plain", "state"):
        found: list[Pair] = []
        for _ in range(session.runs):
            with session.fresh() as folder:
                found.append((restart(folder, steps, kind).replay * 1000 / steps, None))
        session.report(kind, "ms/1,000 steps", found)
