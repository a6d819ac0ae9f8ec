"""Many executions at once: from the first start to the last result."""

from __future__ import annotations

import asyncio

from bench.raw import AGAINST_RATE, RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import Plan, expected, nap, naps, require
from polos import PolosClient, Workflow

CROWDS = ((1000, 10), (100, 10), (1000, 100), (100, 100))
SLEEPING = ((1000, 10), (100, 10))
RAW_ROWS = 1000


async def _in_plain_asyncio(plans: list[Plan]) -> float:
    async def one(plan: Plan) -> None:
        for seconds in naps(plan):
            await nap(seconds)

    with stopwatch() as took:
        async with asyncio.TaskGroup() as group:
            for plan in plans:
                group.create_task(one(plan))
    return sum(plan.steps for plan in plans) / took.seconds


async def _through_polos(
    client: PolosClient, work: Workflow[int], plans: list[Plan], cpu: list[Pair]
) -> float:
    with stopwatch() as took:
        results = await asyncio.gather(*(work(client, plan) for plan in plans))
    wanted = [plan.steps if "naps" in work.id else expected(plan) for plan in plans]
    require(results, wanted)
    taken = sum(plan.steps for plan in plans)
    cpu.append((took.cpu_seconds / taken * 1e6, None))
    return taken / took.seconds


def measure_crowds(session: Session, busy: Workflow[int], sleeping: Workflow[int]) -> None:
    """Measure steps per second, starts, endings and results of all the executions included."""
    for size, steps in CROWDS:
        plans = [Plan(steps=steps) for _ in range(session.size(size, 20))]
        cpu: list[Pair] = []

        async def once(
            client: PolosClient,
            raw: RawLog,
            plans: list[Plan] = plans,
            cpu: list[Pair] = cpu,
        ) -> Pair:
            await busy(client, Plan(steps=5))
            limit = raw.rate(session.size(RAW_ROWS, 20))
            return await _through_polos(client, busy, plans, cpu), limit

        session.report(f"{size}x{steps}", "steps/s", session.pairs(once), AGAINST_RATE)
        session.report(f"{size}x{steps}_cpu", "CPU us/step", cpu)
    for size, steps in SLEEPING:
        plans = [Plan(steps=steps, seed=seed) for seed in range(session.size(size, 20))]

        async def doze(client: PolosClient, _: RawLog, plans: list[Plan] = plans) -> Pair:
            await sleeping(client, Plan(steps=5))
            limit = await _in_plain_asyncio(plans)
            return await _through_polos(client, sleeping, plans, []), limit

        measure = f"{size}x{steps}_sleeping"
        session.report(measure, "steps/s", session.pairs(doze), "the bodies in plain asyncio")
