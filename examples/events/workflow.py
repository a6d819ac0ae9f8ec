"""A shop: orders come as events, payments as others, and what happens is told as events."""

from pydantic import BaseModel

from polos import BatchEventPayload, EventPayload, WaitTimeoutError, WorkflowContext, workflow

PAYMENT_SECONDS = 1.0


class Order(BaseModel):
    id: int
    total: int


@workflow(id="handle_order", trigger_on_event="orders")
async def handle_order(ctx: WorkflowContext, event: EventPayload) -> str:
    """Started by every order, once, whichever worker sees it first."""
    order = Order.model_validate(event.data)
    await ctx.step.publish_workflow_event("received", {"order": order.id}, "received")
    try:
        payment = await ctx.step.wait_for_event(
            "payment",
            topic="payments",
            timeout=PAYMENT_SECONDS,
            filter={"order": order.id, "amount": (">=", order.total)},
        )
    except WaitTimeoutError:
        await ctx.step.publish_event("cancel", "shipping", {"order": order.id}, "cancelled")
        return "cancelled"
    data = {"order": order.id, "paid": payment.data["amount"]}
    await ctx.step.publish_event("ship", "shipping", data, "shipped")
    return "shipped"


@workflow(id="book", trigger_on_event="payments", batch_size=10, batch_timeout_seconds=1)
async def book(ctx: WorkflowContext, given: BatchEventPayload) -> int:
    """Started by ten payments, or by fewer when the first of them is a second old."""
    total = sum(event.data["amount"] for event in given.events)
    await ctx.step.publish_event("booked", "books", {"count": len(given.events), "total": total})
    return total
