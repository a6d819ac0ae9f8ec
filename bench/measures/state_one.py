"""One sequential execution with a changing state of 1 KB against one without state."""

from __future__ import annotations

from bench.raw import RawLog
from bench.report import Pair
from bench.session import Session, Watch, stopwatch
from bench.workflows import Plan, expected, require, state_steps, steps
from polos import PolosClient, Workflow

ROUNDS = 10


def measure(session: Session) -> None:
    """Measure in short turns on one database: with, without, with, …"""
    plan = Plan(steps=session.size(200, 20))
    on_disk: list[Pair] = []

    async def took(client: PolosClient, work: Workflow[int]) -> Watch:
        with stopwatch() as watch:
            result = await work(client, plan)
        require(result, expected(plan))
        return watch

    async def both(client: PolosClient) -> tuple[Pair, float]:
        await steps(client, Plan(steps=5))
        await state_steps(client, Plan(steps=5))
        with_state = without = cpu = 0.0
        rounds = session.size(ROUNDS, 1)
        for _round in range(rounds):
            plain, stateful = await took(client, steps), await took(client, state_steps)
            without += plain.seconds
            with_state += stateful.seconds
            cpu += stateful.cpu_seconds - plain.cpu_seconds
        taken = rounds * plan.steps
        return (with_state / taken * 1e3, without / taken * 1e3), cpu / taken * 1e6

    async def once(client: PolosClient, _: RawLog) -> Pair:
        times, cpu = await both(client)
        on_disk.append((cpu, None))
        return times

    async def in_memory() -> Pair:
        async with PolosClient("sqlite://") as client:
            return (await both(client))[1], None

    session.report("1kb", "ms/step", session.pairs(once), "the same without state")
    tracking = [session.run(in_memory()) for _ in range(session.runs)]
    session.report("tracking", "CPU us/step", tracking)
    session.report("tracking_on_disk", "CPU us/step", on_disk)
