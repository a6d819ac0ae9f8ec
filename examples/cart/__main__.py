"""The command: orders of two customers at once, one that fails, and an old cart."""

import argparse
import asyncio

from examples.cart.workflow import Order, put_into_cart
from polos import ExecutionFailedError, PolosClient


async def run(url: str | None) -> None:
    """Put goods into carts, and show them."""
    async with PolosClient(url) as client:
        for name in ("ann", "bob"):
            await client.delete_state(put_into_cart, name)
        await client.set_state(put_into_cart, "bob", {"$version": 1, "items": ["lamp", "lamp"]})
        orders = [
            Order(customer_id=name, sku=sku)
            for sku in ("lamp", "bulb", "bulb")
            for name in ("ann", "bob")
        ]
        await asyncio.gather(*(put_into_cart(client, order) for order in orders))
        try:
            await put_into_cart(client, Order(customer_id="ann", sku="unicorn"))
        except ExecutionFailedError as error:
            print(f"refused: {error}")
        for name in await client.list_state_keys(put_into_cart):
            cart = await client.get_state(put_into_cart, name)
            if cart is not None:
                print(f"{name}: {cart['counts']}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.cart", description=__doc__)
    parser.add_argument("--url", help="the store; default: POLOS_URL, else ./.polos/polos.db")
    asyncio.run(run(parser.parse_args().url))


if __name__ == "__main__":
    main()
