"""Events start executions with a state key where values are encrypted before they are stored."""

from __future__ import annotations

from typing import Any

from polos import EventPayload, Polos, WorkflowContext, WorkflowState, events, workflow
from polos.codecs import EncryptionCodec, generate_key
from tests.semantics.stores import MakeUrl, make_url, stop_servers, until

__all__ = ["make_url", "stop_servers"]


class Seen(WorkflowState):
    numbers: list[int] = []


async def test_an_event_starts_what_begins_with_the_state_of_its_key(make_url: MakeUrl) -> None:
    begun: list[int] = []

    @workflow(
        id="seen",
        trigger_on_event="orders",
        state_schema=Seen,
        state_key=lambda event: event.data["customer"],
    )
    async def seen(ctx: WorkflowContext, event: EventPayload) -> list[int]:
        begun.append(event.data["number"])
        ctx.state.numbers.append(event.data["number"])
        await ctx.step.uuid("added")
        if event.data.get("wait"):
            await ctx.step.suspend("asked")
        return list(ctx.state.numbers)

    async def publish(number: int, **more: Any) -> None:
        data = events.EventData(data={"customer": "ann", "number": number, **more})
        await events.publish(polos, "orders", data)

    async def completed() -> list[Any]:
        found = await polos.list_executions(workflow_id="seen", status="completed")
        return [each["result"] for each in reversed(found)]

    async with Polos(make_url(), codec=EncryptionCodec(generate_key())) as polos:
        await publish(1)
        await until(completed)
        await publish(2, wait=True)
        await until(polos.list_suspensions)
        (waiting,) = await polos.list_suspensions()
        await publish(3)

        async def is_queued() -> bool:
            return bool(await polos.list_executions(workflow_id="seen", status="queued"))

        await until(is_queued)
        assert begun == [1, 2]
        await polos.resume("seen", waiting["execution_id"], "asked", {})

        async def all_completed() -> bool:
            return len(await completed()) == 3

        await until(all_completed)
        assert await completed() == [[1], [1, 2], [1, 2, 3]]
