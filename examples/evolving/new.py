"""The subscription as it is deployed now: prices are cents, with a currency."""

from polos import WorkflowContext, WorkflowState, migrate, workflow


class Subscription(WorkflowState, version=2):
    """What a customer pays each month."""

    cents: int = 990
    currency: str = "EUR"
    months: int = 0

    @migrate(from_version=1)
    @staticmethod
    def _(data: dict[str, str]) -> dict[str, object]:
        """Read the text that version 1 had."""
        amount, currency = data["price"].split()
        cents = round(float(amount) * 100)
        return {"cents": cents, "currency": currency, "months": data["months"]}


@workflow(id="subscription", state_schema=Subscription)
async def subscription(ctx: WorkflowContext, name: str) -> str:
    """Charge a month, and wait for the next one."""
    ctx.state.months += 1
    await ctx.step.suspend("next month", {"name": name})
    ctx.state.months += 1
    return f"{name} paid {ctx.state.months} months at {ctx.state.cents} cents {ctx.state.currency}"
