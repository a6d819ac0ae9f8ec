"""Run it with `python -m examples.long_history`; kill it, and run it again.

It polls a source page by page. Every ten pages its run ends, and the next one begins in place with
an empty journal: same execution, same state, next page.
"""

from __future__ import annotations

import argparse
import asyncio

from polos import PolosClient, WorkflowContext, WorkflowState, workflow

ROWS_MAX = 10


class Read(WorkflowState):
    pages: int = 0
    lines: int = 0


async def fetch(page: int, last: int) -> int:
    """Return how many lines a page has; 0 behind the last one."""
    await asyncio.sleep(0.01)
    return 7 if page < last else 0


@workflow(id="long_history.follow", state_schema=Read)
async def follow(ctx: WorkflowContext, at: dict[str, int]) -> str:
    """Read on from a page, in runs of at most ten."""
    page, last = at["page"], at["last"]
    while lines := await ctx.step.run(f"page {page}", fetch, page, last):
        ctx.state.pages += 1
        ctx.state.lines += lines
        page += 1
        if ctx.history_length >= ROWS_MAX:
            ctx.continue_as_new({"page": page, "last": last})
    return f"{ctx.state.lines} lines of {ctx.state.pages} pages"


async def main(pages: int, url: str | None) -> None:
    """Follow so many pages, and print in how many runs."""
    async with PolosClient(url) as client:
        handle = await follow.invoke(
            client, {"page": 0, "last": pages}, idempotency_key=f"follow {pages}"
        )
        result = await handle.result()
        shown = await client.get_execution(handle.id)
        print(f"{result}, in {shown['generation'] + 1} runs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.long_history")
    parser.add_argument("--pages", type=int, default=35)
    parser.add_argument("--url", help="where it is stored; else ./.polos/polos.db")
    given = parser.parse_args()
    asyncio.run(main(given.pages, given.url))
