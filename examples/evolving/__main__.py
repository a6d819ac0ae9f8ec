"""Begin subscriptions with the old code, deploy the new one, and let them go on.

Each deployment is a process of its own: `--deployed old` begins, `--deployed new` ends. Without it
both run, one after the other.
"""

import argparse
import asyncio
import importlib
import subprocess
import sys

from polos import PolosClient

NAMES = ("ann", "bob")


async def begin(url: str | None) -> None:
    """Begin subscriptions that wait for the next month."""
    async with PolosClient(url) as client:
        for name in NAMES:
            handle = await client.invoke("subscription", name)
            while (await client.get_execution(handle.id))["status"] != "waiting":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            print(f"{name}, version 1: {await handle.state()}")


async def go_on(url: str | None) -> None:
    """Answer for the next month: the state is migrated when it is loaded."""
    async with PolosClient(url) as client:
        waiting = await client.list_executions(workflow_id="subscription", status="waiting")
        for each in reversed(waiting):
            handle = client.get_handle(each["id"])
            await handle.resume("next month", {})
            print(await handle.result())
            print(f"  version 2: {await handle.state()}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.evolving", description=__doc__)
    parser.add_argument("--url", help="the store; default: POLOS_URL, else ./.polos/polos.db")
    parser.add_argument("--deployed", choices=["old", "new"])
    arguments = parser.parse_args()
    if arguments.deployed is not None:
        importlib.import_module(f"examples.evolving.{arguments.deployed}")
        asyncio.run((begin if arguments.deployed == "old" else go_on)(arguments.url))
        return
    given = [] if arguments.url is None else ["--url", arguments.url]
    for deployed in ("old", "new"):
        command = [sys.executable, "-m", "examples.evolving", "--deployed", deployed, *given]
        if subprocess.run(command, check=False).returncode:
            sys.exit(1)


if __name__ == "__main__":
    main()
