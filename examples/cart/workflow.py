"""The cart of a customer: each order goes on with what the last one left."""

from pydantic import BaseModel

from polos import WorkflowContext, WorkflowState, migrate, workflow


class Order(BaseModel):
    """What a customer puts into the cart."""

    customer_id: str
    sku: str
    count: int = 1


class Cart(WorkflowState, version=2):
    """What is in the cart of a customer."""

    counts: dict[str, int] = {}

    @migrate(from_version=1)
    @staticmethod
    def _(data: dict[str, list[str]]) -> dict[str, dict[str, int]]:
        """Version 1 had a list of names."""
        return {"counts": {sku: data["items"].count(sku) for sku in data["items"]}}


def reserve(order: Order) -> int:
    """Ask the stock for goods."""
    if order.sku == "unicorn":
        raise ValueError("there are no unicorns")
    return order.count


@workflow(
    id="cart",
    state_schema=Cart,
    state_key=lambda order: order.customer_id,
    state_on_failure="rollback",
)
async def put_into_cart(ctx: WorkflowContext, order: Order) -> int:
    """Put goods into a customer's cart; returns how many are in it."""
    counts = ctx.state.counts
    counts[order.sku] = counts.get(order.sku, 0) + order.count
    await ctx.step.run("reserve", reserve, order, max_retries=0)
    return sum(counts.values())
