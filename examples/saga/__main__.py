"""The command: books a trip, with a ledger in the store's database and a bank that is asked."""

import argparse
import asyncio
import sys
from typing import Any

from polos import Done, ExecutionFailedError, NotDone, PolosClient, WorkflowContext, workflow

LEDGER = "CREATE TABLE IF NOT EXISTS example_ledger (line TEXT)"
bank: dict[str, str] = {}


def write_down(connection: Any, line: str) -> int:
    """Add a line; it is committed with the record of the step, or not at all."""
    connection.execute(LEDGER)
    connection.execute("INSERT INTO example_ledger VALUES (?)", (line,))
    return next(connection.execute("SELECT count(*) FROM example_ledger"))[0]


async def book(what: str, full: str) -> str:
    if what == full:
        raise ValueError(f"no {what} left")
    print(f"booked {what}")
    return f"{what}-1"


async def cancel(booking: str) -> None:
    print(f"cancelled {booking}")


async def pay(ctx: WorkflowContext, amount: int) -> str:
    bank[ctx.step.idempotency_key()] = receipt = f"receipt over {amount}"
    print(f"paid {amount}")
    return receipt


async def find_payment(key: str) -> Done | NotDone:
    return Done(bank[key]) if key in bank else NotDone()


@workflow(id="examples.saga")
async def trip(ctx: WorkflowContext, full: str) -> str:
    await ctx.step.transaction("note", write_down, "a trip")
    receipt = await ctx.step.run(
        "pay",
        pay,
        ctx,
        700,
        reconcile=find_payment,
        compensate=lambda receipt: print(f"paid back: {receipt}"),
    )
    for what in ("hotel", "car", "flight"):
        await ctx.step.run(what, book, what, full, max_retries=0, compensate=cancel)
    return receipt


async def run(full: str, url: str | None) -> None:
    async with PolosClient(url) as client:
        handle = await trip.invoke(client, full)
        try:
            print(f"done: {await handle.result()}")
        except ExecutionFailedError as error:
            left = (await client.get_execution(handle.id))["not_compensated"]
            print(f"undone: {error.error}; left: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.saga", description=__doc__)
    parser.add_argument("--full", default="", help="what cannot be booked: hotel, car or flight")
    parser.add_argument("--url", help="the store (default: POLOS_URL, else ./.polos/polos.db)")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.full, arguments.url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
