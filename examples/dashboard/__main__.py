"""Start orders, watch all of them while they run, then count and sum them."""

import argparse
import asyncio

from polos import PolosClient, WorkflowContext, WorkflowState, workflow

ORDERS = [("ann", 3), ("bob", 5), ("cleo", 2), ("ann", 4)]
CENTS = 250


class Order(WorkflowState):
    """How far an order is."""

    customer: str = ""
    packed: int = 0
    cents: int = 0


async def pack(number: int) -> int:
    """Pack one piece; returns its price."""
    await asyncio.sleep(0.005 * number)
    return CENTS


@workflow(id="order", state_schema=Order, index_state=["customer", "cents"])
async def order(ctx: WorkflowContext, pieces: int) -> None:
    """Pack an order piece by piece."""
    for number in range(pieces):
        ctx.state.cents += await ctx.step.run(f"pack {number}", pack, number)
        ctx.state.packed += 1


async def watch(client: PolosClient, total: int, ready: asyncio.Event) -> int:
    """Follow every order until all is packed; returns how many changes came."""
    packed: dict[str, int] = {}
    changes = 0
    following = client.watch("order", where={"tags.demo": "dashboard"})
    ready.set()
    async for change in following:
        changes += 1
        packed[change["execution_id"]] = change["state"]["packed"]
        done = sum(packed.values())
        print(f"\r[{'#' * done:{total}}] {done}/{total}", end="", flush=True)
        if done == total:
            await following.aclose()
            print()
    return changes


async def run(url: str | None) -> None:
    """Watch the orders, and ask for them when they have ended."""
    total = sum(pieces for _, pieces in ORDERS)
    async with PolosClient(url) as client:
        ready = asyncio.Event()
        watching = asyncio.ensure_future(watch(client, total, ready))
        await ready.wait()
        begun = [
            await order.invoke(
                client, pieces, initial_state=Order(customer=name), tags={"demo": "dashboard"}
            )
            for name, pieces in ORDERS
        ]
        for handle in begun:
            await handle.result()
        await watching

        rows = await client.aggregate(
            sum="state.cents", group_by="state.customer", workflow_id="order"
        )
        for row in sorted(rows, key=lambda row: (-row["sum"], row["group"])):
            print(f"{row['group']:6}{row['count']:3} orders {row['sum'] / 100:8.2f}")
        large = await client.list_executions(
            workflow_id="order", where={"state.cents": (">=", 4 * CENTS)}
        )
        print("large:", ", ".join(sorted({each["state"]["customer"] for each in large})))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.dashboard", description=__doc__)
    parser.add_argument("--url", help="the store; default: POLOS_URL, else ./.polos/polos.db")
    asyncio.run(run(parser.parse_args().url))


if __name__ == "__main__":
    main()
