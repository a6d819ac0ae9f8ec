"""The command: starts the story and shows it as it is written."""

import argparse
import asyncio

from examples.streaming.workflow import settings, tell
from polos import PolosClient


async def run(url: str | None) -> None:
    async with PolosClient(url) as client:
        handle = await tell.invoke(client)
        print(f"execution {handle.id}", flush=True)
        async for chunk in handle.stream(step_key="story"):
            if chunk.type == "reset":
                print("… (again)", flush=True)
            else:
                print(chunk.data, end="", flush=True)
        print()
        progress = [c.data async for c in handle.stream() if c.step_key is None]
        print(f"{await handle.result()} letters; {progress}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m examples.streaming",
        description="Write a story and stream it out. Read it from another terminal as well: "
        "polos stream ID.",
    )
    parser.add_argument("--url", help="the store (default: POLOS_URL, else ./.polos/polos.db)")
    parser.add_argument(
        "--slow", type=float, default=0.05, metavar="SECONDS", help="take so long for each word"
    )
    options = parser.parse_args()
    settings.seconds_per_word = options.slow
    asyncio.run(run(options.url))


if __name__ == "__main__":
    main()
