"""State that steps change, and that a caller begins with."""

import asyncio
from typing import Any

from pydantic import BaseModel

from polos import Polos, WorkflowContext, WorkflowState, workflow


class CounterState(WorkflowState):
    count: int = 0
    log: list[str] = []


class Change(BaseModel):
    action: str
    by: int = 1


class CartState(WorkflowState):
    items: list[dict[str, Any]] = []
    total: float = 0.0


class Item(BaseModel):
    name: str
    price: float


@workflow(id="counter", state_schema=CounterState)
async def counter(ctx: WorkflowContext, payload: Change) -> dict:
    if payload.action == "up":
        ctx.state.count += payload.by
    elif payload.action == "down":
        ctx.state.count -= payload.by
    elif payload.action == "reset":
        ctx.state.count = 0
    ctx.state.log.append(payload.action)
    count = await ctx.step.run("look", lambda: ctx.state.count)
    return {"count": count, "log": ctx.state.log}


@workflow(id="cart", state_schema=CartState)
async def cart(ctx: WorkflowContext, payload: Item) -> dict[str, Any]:
    ctx.state.items.append({"name": payload.name, "price": payload.price})
    ctx.state.total += payload.price
    await ctx.step.run("store", lambda: True)
    return {"items": len(ctx.state.items), "total": ctx.state.total}


async def main() -> None:
    async with Polos(log_file="polos.log") as polos:
        for change in (Change(action="up"), Change(action="up", by=5), Change(action="down", by=2)):
            print((await counter.run(polos, change))["count"])
        print((await counter.run(polos, Change(action="reset")))["count"])
        begun = CounterState(count=100)
        print(await counter.run(polos, Change(action="up", by=5), initial_state=begun))
        print(await cart.run(polos, Item(name="lamp", price=25)))
        more = CartState(items=[{"name": "x", "price": 50}], total=50)
        print(await cart.run(polos, Item(name="lamp", price=25), initial_state=more))


if __name__ == "__main__":
    asyncio.run(main())
