"""The subscription as it was deployed first: prices are text."""

from polos import WorkflowContext, WorkflowState, workflow


class Subscription(WorkflowState):
    """What a customer pays each month."""

    price: str = "9.90 EUR"
    months: int = 0


@workflow(id="subscription", state_schema=Subscription)
async def subscription(ctx: WorkflowContext, name: str) -> str:
    """Charge a month, and wait for the next one."""
    ctx.state.months += 1
    await ctx.step.suspend("next month", {"name": name})
    ctx.state.months += 1
    return f"{name} paid {ctx.state.months} months at {ctx.state.price}"
