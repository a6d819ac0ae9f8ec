"""One execution, one step after the other: how near to the rate of single-row commits."""

from __future__ import annotations

from bench.raw import AGAINST_RATE, RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import Plan, expected, require, steps
from polos import PolosClient

TURNS = 5


def measure(session: Session) -> None:
    """Measure each way of committing: on the loop thread, on the writer thread, the default.

    Raw commits and executions take short turns, since a disk can change its mind within seconds.
    """
    plan = Plan(steps=session.size(400, 50))
    turns = session.size(TURNS, 1)

    async def once(client: PolosClient, raw: RawLog) -> Pair:
        await steps(client, Plan(steps=5))
        limit = seconds = 0.0
        for _ in range(turns):
            limit += raw.seconds(plan.steps)
            with stopwatch() as took:
                result = await steps(client, plan)
            require(result, expected(plan))
            seconds += took.seconds
        return turns * plan.steps / seconds, turns * plan.steps / limit

    for commit in ("inline", "thread", "auto"):
        session.report(commit, "steps/s", session.pairs(once, commit), AGAINST_RATE)
