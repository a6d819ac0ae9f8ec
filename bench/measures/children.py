"""A parent that starts 1,000 children and waits for all of them."""

from __future__ import annotations

import asyncio

from bench.raw import RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import require
from polos import BatchWorkflowInput, PolosClient, Workflow, WorkflowContext, workflow


@workflow(id="bench_child")
async def child(ctx: WorkflowContext, number: int) -> int:
    """Be one of many."""
    return number


@workflow(id="bench_batch_parent")
async def batch_parent(ctx: WorkflowContext, count: int) -> int:
    """Start all children with one call."""
    inputs = [BatchWorkflowInput(id=child.id, payload=number) for number in range(count)]
    results = await ctx.step.batch_invoke_and_wait("children", inputs)
    return sum(each.result for each in results if each.success)


@workflow(id="bench_gather_parent")
async def gather_parent(ctx: WorkflowContext, count: int) -> int:
    """Start each child with a call of its own, all at once."""
    calls = (ctx.step.invoke_and_wait(f"child_{n}", child, n) for n in range(count))
    return sum(await asyncio.gather(*calls))


def measure(session: Session) -> None:
    """Measure both ways, from the start of the parent to its result."""
    count = session.size(1000, 30)

    for name, parent in (("batch", batch_parent), ("gather", gather_parent)):

        async def once(client: PolosClient, raw: RawLog, parent: Workflow[int] = parent) -> Pair:
            await parent(client, 2)
            limit = raw.seconds(count)
            with stopwatch() as took:
                result = await parent(client, count)
            require(result, sum(range(count)))
            return took.seconds, limit

        against = f"{count:,} single-row commits"
        session.report(name, "s", session.pairs(once), against)
