"""From the start of a workflow with one step to its result in the caller's hands."""

from __future__ import annotations

import statistics

from bench.raw import AGAINST_TIME, RawLog
from bench.report import Pair
from bench.session import Session, p99, stopwatch
from bench.workflows import Plan, require, state_steps, steps
from polos import PolosClient, Workflow

PLAN = Plan(steps=1)


def measure(session: Session) -> None:
    """Measure p50 and p99, each against the median of raw commits made in between."""
    count = session.size(500, 20)

    async def sample(
        client: PolosClient, raw: RawLog, work: Workflow[int]
    ) -> tuple[list[float], list[float]]:
        took: list[float] = []
        limits: list[float] = []
        for _ in range(count):
            limits.append(raw.seconds(1) * 1e3)
            with stopwatch() as watch:
                result = await work(client, PLAN)
            took.append(watch.seconds * 1e3)
            require(result, 0)
        return took, limits

    for name, work in (("plain", steps), ("state", state_steps)):
        slow: list[Pair] = []

        async def once(
            client: PolosClient,
            raw: RawLog,
            work: Workflow[int] = work,
            slow: list[Pair] = slow,
        ) -> Pair:
            for _ in range(5):
                await work(client, PLAN)
            took, limits = await sample(client, raw, work)
            slow.append((p99(took), statistics.median(limits)))
            return statistics.median(took), statistics.median(limits)

        session.report(f"{name}_p50", "ms", session.pairs(once), AGAINST_TIME)
        session.report(f"{name}_p99", "ms", slow, AGAINST_TIME)
