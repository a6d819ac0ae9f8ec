"""Answers suspensions from another process: `python -m bench.answerer URL`, an id for each line.

Each answer carries its moment, in nanoseconds of the system's monotonic clock.
"""

from __future__ import annotations

import asyncio
import sys
import time

from polos import PolosClient

PAUSE_SECONDS = 0.02
"""Between two answers: each finds whoever waits at rest."""


async def main() -> None:
    """Answer one after the other."""
    ids = sys.stdin.read().split()
    async with PolosClient(sys.argv[1]) as client:
        for each in ids:
            await client.resume(None, each, "ok", {"at_ns": time.monotonic_ns()})
            await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    asyncio.run(main())
