"""Starting executions: one by one and many at once, while this process also runs them."""

from __future__ import annotations

from bench.raw import AGAINST_RATE, RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import Plan, require, steps
from polos import BatchWorkflowInput, PolosClient

PLAN = Plan(steps=1)
RAW_ROWS = 500


def measure(session: Session) -> None:
    """Measure until the handles, which stand for durable starts, and until the last result."""
    done: list[Pair] = []

    async def one_by_one(client: PolosClient, raw: RawLog) -> Pair:
        count = session.size(1000, 20)
        await steps(client, PLAN)
        limit = raw.rate(count)
        with stopwatch() as took:
            handles = [await steps.invoke(client, PLAN) for _ in range(count)]
        for handle in handles:
            require(await handle.result(), 0)
        return count / took.seconds, limit

    async def batch(client: PolosClient, raw: RawLog) -> Pair:
        count = session.size(5000, 50)
        inputs = [BatchWorkflowInput(id=steps.id, payload=PLAN) for _ in range(count)]
        await steps(client, PLAN)
        limit = raw.rate(session.size(RAW_ROWS, 10))
        with stopwatch() as ended:
            with stopwatch() as started:
                handles = await client.batch_invoke(inputs)
            for handle in handles:
                require(await handle.result(), 0)
        done.append((count / ended.seconds, limit))
        return count / started.seconds, limit

    session.report("one_by_one", "starts/s", session.pairs(one_by_one), AGAINST_RATE)
    session.report("batch", "starts/s", session.pairs(batch), AGAINST_RATE)
    session.report("batch_done", "executions/s", done, AGAINST_RATE)
