"""A process that publishes, or that waits for events: `publisher.py MODE URL NAME`."""

import asyncio
import sys
from itertools import count

from polos import (
    BatchEventPayload,
    EventPayload,
    Polos,
    PolosClient,
    WorkflowContext,
    events,
    workflow,
)

MODE, URL, NAME = sys.argv[1:4]


@workflow(id="echo")
async def echo(ctx: WorkflowContext) -> None:
    while True:
        asked = await ctx.step.wait_for_event("asked", "questions")
        await ctx.step.publish_event("answered", "answers", asked.data)


@workflow(id="hears")
async def hears(ctx: WorkflowContext, topic: str) -> None:
    await ctx.step.wait_for_event("got", topic, filter={"event_type": "workflow_finish"})


def triggered() -> None:
    """Register what the events of `orders` start."""

    @workflow(id="single", trigger_on_event="orders")
    async def single(ctx: WorkflowContext, event: EventPayload) -> int:
        await ctx.step.publish_event("seen", "seen", {"n": event.sequence_id})
        return event.sequence_id

    @workflow(id="batch", trigger_on_event="orders", batch_size=5)
    async def batch(ctx: WorkflowContext, given: BatchEventPayload) -> int:
        return len(given.events)


async def publish() -> None:
    """Publish for ever, and say what is durable."""
    async with PolosClient(URL) as client:
        print("ready", flush=True)
        for n in count():
            number = await events.publish(client, "t", {"data": {"by": NAME, "n": n}})
            print(n, number, flush=True)


async def answer() -> None:
    """Run the echo for ever."""
    async with Polos(url=URL) as polos:
        await echo.invoke(polos, idempotency_key="echo")
        print("ready", flush=True)
        await asyncio.Event().wait()


async def hear() -> None:
    """Wait for the end of an execution, whose topic is NAME, for ever."""
    async with Polos(url=URL) as polos:
        await hears.invoke(polos, NAME, idempotency_key="hears")
        print("ready", flush=True)
        await asyncio.Event().wait()


async def work() -> None:
    """Run what events start, for ever."""
    triggered()
    async with Polos(url=URL):
        print("ready", flush=True)
        await asyncio.Event().wait()


asyncio.run({"publish": publish, "answer": answer, "hear": hear, "work": work}[MODE]())
