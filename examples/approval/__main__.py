"""The command: hands an expense in and waits; people answer with `polos resume`."""

import argparse
import asyncio
import json
from typing import Any

from examples.approval.workflow import Expense, approve_expense
from polos import ExecutionHandle, PolosClient, PolosError, WorkflowTimeoutError

SCRIPT: dict[str, Any] = {
    "accountant": {"approved": True, "approver": "Ann"},
    "second_look": {"agree": True, "name": "Bo"},
}
"""What `--answer` answers by itself."""


async def run(expense: Expense, url: str | None, *, answer: bool) -> None:
    async with PolosClient(url) as client:
        handle = await approve_expense.invoke(client, expense)
        print(f"execution {handle.id}", flush=True)
        watching = asyncio.create_task(watch(client, handle, answer=answer))
        try:
            outcome = await handle.result()
        finally:
            watching.cancel()
        print(f"{outcome.status}, decided by {', '.join(outcome.decided_by) or 'nobody'}")


async def watch(client: PolosClient, handle: ExecutionHandle, *, answer: bool) -> None:
    """Say what is asked, and how to answer it."""
    told: set[str] = set()
    while True:
        for each in await client.list_suspensions(execution_id=handle.id):
            key = each["step_key"]
            if key in told:
                continue
            told.add(key)
            if answer:
                print(f"{key}: {json.dumps(SCRIPT[key])}", flush=True)
                await handle.resume(key, SCRIPT[key])
            else:
                print(f"waiting for an answer: polos resume {handle.id} {key}", flush=True)
        try:
            await handle.result(timeout=0.1)
        except WorkflowTimeoutError:
            continue
        except PolosError:
            return
        return


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.approval",
        description="Hand an expense in, and wait until people have decided about it.",
    )
    parser.add_argument("what", nargs="?", default="a new chair")
    parser.add_argument("amount", nargs="?", type=float, default=1200.0)
    parser.add_argument("--who", default="Carl")
    parser.add_argument("--url", help="the store (default: POLOS_URL, else ./.polos/polos.db)")
    parser.add_argument("--answer", action="store_true", help="answer by script, for a quick look")
    given = parser.parse_args()
    expense = Expense(who=given.who, what=given.what, amount=given.amount)
    try:
        asyncio.run(run(expense, given.url, answer=given.answer))
    except KeyboardInterrupt:
        print("stopped; it still waits, and goes on where the workflow runs", flush=True)


if __name__ == "__main__":
    main()
