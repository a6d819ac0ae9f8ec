"""Workflows that events start, one each and in batches; one that waits for an event."""

import asyncio

from polos import BatchEventPayload, EventPayload, Polos, WorkflowContext, events, workflow

done: dict[str, asyncio.Event] = {}


def tell(name: str) -> None:
    done[name].set()


@workflow(id="on-signup", trigger_on_event="user/signup")
async def on_signup(ctx: WorkflowContext, payload: EventPayload) -> dict:
    assert (payload.sequence_id, payload.created_at.tzinfo is None) == (1, False)
    await ctx.step.run(
        "say", lambda: print(payload.topic, payload.event_type, payload.data["name"])
    )
    tell("signup")
    return {"ok": True}


@workflow(id="on-orders", trigger_on_event="orders", batch_size=3, batch_timeout_seconds=30)
async def on_orders(ctx: WorkflowContext, payload: BatchEventPayload) -> dict:
    print([event.data["n"] for event in payload.events])
    tell("orders")
    return {"count": len(payload.events)}


@workflow(id="chained")
async def chained(ctx: WorkflowContext, payload: dict) -> None:
    await ctx.step.publish_event(
        "publish", topic="jobs/done", data={"job": payload["job"]}, event_type="job_done"
    )


@workflow(id="waits")
async def waits(ctx: WorkflowContext, payload: dict) -> dict:
    event = await ctx.step.wait_for_event("wait", topic="jobs/done", timeout=60)
    return {"topic": event.topic, "type": event.event_type, "data": event.data}


async def main() -> None:
    done.update(signup=asyncio.Event(), orders=asyncio.Event())
    async with Polos(log_file="polos.log") as polos:
        number = await events.publish(
            client=polos,
            topic="user/signup",
            event_data=events.EventData(event_type="created", data={"name": "Ünal"}),
        )
        await done["signup"].wait()
        numbers = await events.batch_publish(
            client=polos,
            topic="orders",
            events=[events.EventData(event_type="order", data={"n": n}) for n in range(3)],
        )
        await done["orders"].wait()
        print(number, numbers)

        handle = await waits.invoke(polos, {})
        async for event in events.stream_workflow(polos, "waits", handle.id):
            if event.event_type == "step_start":
                break
        await chained.run(polos, {"job": 0})
        while True:
            got = await handle.get(polos)
            if got["status"] in ("completed", "failed", "cancelled"):
                break
            await asyncio.sleep(0.01)
        print(got["result"])


if __name__ == "__main__":
    asyncio.run(main())
