"""One execution, one step after the other: how near to the rate of single-row commits."""

from __future__ import annotations

from bench.raw import AGAINST_RATE, RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import Plan, expected, require, steps
from polos import PolosClient


def measure(session: Session) -> None:
    """Measure each way of committing: on the loop thread, on the writer thread, the default."""
    plan = Plan(steps=session.size(2000, 50))

    async def once(client: PolosClient, raw: RawLog) -> Pair:
        await steps(client, Plan(steps=5))
        limit = raw.rate(plan.steps)
        with stopwatch() as took:
            result = await steps(client, plan)
        require(result, expected(plan))
        return plan.steps / took.seconds, limit

    for commit in ("inline", "thread", "auto"):
        session.report(commit, "steps/s", session.pairs(once, commit), AGAINST_RATE)
