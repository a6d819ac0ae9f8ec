"""Run it with `python -m examples.hooks`; an amount of 0 or less is refused.

```bash
python -m examples.hooks 19.999
python -m examples.hooks -5
```
"""

from __future__ import annotations

import argparse
import asyncio

from pydantic import BaseModel

from polos import (
    ExecutionFailedError,
    HookContext,
    HookResult,
    PolosClient,
    WorkflowContext,
    hook,
    workflow,
)


class Order(BaseModel):
    amount: float


@hook
def check(ctx: WorkflowContext, hook_ctx: HookContext) -> HookResult:
    """Refuse what cannot be charged, and round the rest; the code gets an `Order` again."""
    order = hook_ctx.current_payload
    assert isinstance(order, Order)
    if order.amount <= 0:
        return HookResult.fail(f"an amount of {order.amount:g} cannot be charged")
    return HookResult.continue_with(modified_payload={"amount": round(order.amount, 2)})


@hook
def sign(ctx: WorkflowContext, hook_ctx: HookContext) -> HookResult:
    """Add a signature to whatever the workflow returned."""
    return HookResult.continue_with(modified_output=f"{hook_ctx.current_output} (signed)")


@workflow(id="hooks.charge", on_start=check, on_end=sign)
async def charge(ctx: WorkflowContext, order: Order) -> str:
    """Charge an order."""
    return await ctx.step.run("charge", lambda: f"charged {order.amount}")


async def main(amount: float, url: str | None) -> None:
    """Charge one amount, and print what came of it."""
    async with PolosClient(url) as client:
        try:
            print(await charge.run(client, Order(amount=amount)))
        except ExecutionFailedError as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.hooks")
    parser.add_argument("amount", type=float, nargs="?", default=19.999)
    parser.add_argument("--url", help="where it is stored; else ./.polos/polos.db")
    given = parser.parse_args()
    asyncio.run(main(given.amount, given.url))
