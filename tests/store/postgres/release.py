"""A worker of this release, or of a next one with changes of its own: `release.py URL NAME SQL`.

Runs rounds of executions until the file `stop` exists in the working folder; says when each ended.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from polos import WorkflowContext, WorkflowState, workflow
from polos.app import EMBEDDED_CONCURRENCY, LiveNode
from polos.client.client import Client
from polos.core.clock import SystemClock
from polos.store.postgres.location import Location
from polos.store.postgres.migrate import Migration, known
from polos.store.postgres.store import PostgresStore
from polos.workflow import registry

URL, NAME, *NEXT = sys.argv[1:]


class Count(WorkflowState):
    done: int = 0


@workflow(id="release.trip", state_schema=Count)
async def trip(ctx: WorkflowContext, n: int) -> list[int]:
    found: list[int] = []
    for step in range(3):
        found.append(await ctx.step.run(f"s{step}", lambda step=step: n + step))
        ctx.state.done += 1
    await ctx.step.wait_for("pause", seconds=0.01)
    found.append(await ctx.step.invoke_and_wait("leaf", leaf, n))
    return [*found, ctx.state.done]


@workflow(id="release.leaf")
async def leaf(ctx: WorkflowContext, n: int) -> int:
    return await ctx.step.run("leaf", lambda: n * 10)


async def open_node(client: Client) -> LiveNode:
    added = tuple(
        Migration(n, f"{n:04}_next.sql", text)
        for n, text in enumerate(NEXT, known()[-1].number + 1)
    )
    store: Any = PostgresStore(Location(client.url), known() + added)
    clock = SystemClock(asyncio.get_running_loop())
    node = LiveNode(
        store,
        clock,
        registry.default,
        client,
        takes_queue=True,
        concurrency=EMBEDDED_CONCURRENCY,
    )
    await node.open()
    return node


class Release(Client):
    _open_node = staticmethod(open_node)


async def main() -> None:
    rounds = 0
    async with Release(URL) as client:
        while not Path("stop").exists():
            found = await asyncio.gather(*(trip(client, n) for n in range(10)))
            assert found == [[n, n + 1, n + 2, n * 10, 3] for n in range(10)], found
            rounds += 1
            print(json.dumps([NAME, rounds]), flush=True)


asyncio.run(main())
