"""A process that publishes for each line that it reads: `python -m bench.speaker URL`.

The event says when, by the system's monotonic clock, its publishing began.
"""

from __future__ import annotations

import asyncio
import sys
import time

from polos import PolosClient, events


async def main(url: str) -> None:
    """Publish on `asked` for each line of standard input."""
    loop = asyncio.get_running_loop()
    async with PolosClient(url) as client:
        print("ready", flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            await events.publish(client, "asked", {"data": {"at": time.monotonic_ns()}})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
