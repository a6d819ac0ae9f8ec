"""The command: publishes orders and payments, and prints what the shop does about them."""

import argparse
import asyncio
import sys

from examples.events import workflow as shop
from polos import Polos, events

ORDERS = {1: 20, 2: 30, 3: 50}
PAID = (1, 3)


async def run(url: str | None) -> None:
    async with Polos(url=url) as polos:
        shipping = events.stream_topic(polos, "shipping")
        books = events.stream_topic(polos, "books")
        waiting = set(ORDERS)
        orders = [
            events.EventData(event_type="order", data=shop.Order(id=id, total=total).model_dump())
            for id, total in ORDERS.items()
        ]
        await events.batch_publish(polos, "orders", orders)
        for execution in await started(polos, len(ORDERS)):
            await until_it_waits(polos, execution)
        print(f"{len(waiting)} orders wait for their payment")
        for id in PAID:
            too_little = {"order": id, "amount": ORDERS[id] - 1}
            for payment in (too_little, {"order": id, "amount": ORDERS[id]}):
                await events.publish(polos, "payments", {"event_type": "paid", "data": payment})
        async for event in shipping:
            print(f"order {event.data['order']}: {event.event_type}")
            waiting.discard(event.data["order"])
            if not waiting:
                break
        booked = await anext(books)
        print(f"booked {booked.data['count']} payments, {booked.data['total']} in all")


async def started(polos: Polos, count: int) -> list[str]:
    """Return the executions that the orders started, once they are there."""
    while True:
        found = await polos.list_executions(workflow_id=shop.handle_order.id, limit=count)
        open_ = [each["id"] for each in found if each["status"] not in {"completed", "failed"}]
        if len(open_) == count:
            return open_
        await asyncio.sleep(0.01)


async def until_it_waits(polos: Polos, execution_id: str) -> None:
    """Read what the execution tells until it says that it waits for its payment."""
    async for event in events.stream_workflow(polos, shop.handle_order.id, execution_id):
        if event.event_type == "step_start" and event.data["step_key"] == "payment":
            return


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.events",
        description="A shop on events: orders start executions, which wait for their payments.",
    )
    parser.add_argument("--url", help="the store (default: POLOS_URL, else ./.polos/polos.db)")
    asyncio.run(run(parser.parse_args().url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
