"""One sequential execution with a changing state of 1 KB against one without state."""

from __future__ import annotations

from bench.raw import RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import Plan, expected, require, state_steps, steps
from polos import PolosClient, Workflow

ROUNDS = 10


def measure(session: Session) -> None:
    """Measure in short turns on one database: with, without, with, …"""
    plan = Plan(steps=session.size(200, 20))

    async def took(client: PolosClient, work: Workflow[int]) -> float:
        with stopwatch() as watch:
            result = await work(client, plan)
        require(result, expected(plan))
        return watch.seconds

    async def once(client: PolosClient, _: RawLog) -> Pair:
        await steps(client, Plan(steps=5))
        await state_steps(client, Plan(steps=5))
        with_state = without = 0.0
        rounds = session.size(ROUNDS, 1)
        for _round in range(rounds):
            without += await took(client, steps)
            with_state += await took(client, state_steps)
        per_step = 1e3 / (rounds * plan.steps)
        return with_state * per_step, without * per_step

    session.report("1kb", "ms/step", session.pairs(once), "the same without state")
