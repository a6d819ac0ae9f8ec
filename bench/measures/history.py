"""How soon a past state is read, of an execution with 10,000 of them."""

from __future__ import annotations

import time

from bench.raw import RawLog
from bench.report import Pair
from bench.session import Session
from bench.workflows import require
from polos import PolosClient, Workflow, WorkflowContext, WorkflowState, workflow

EVERY = 97


class Notes(WorkflowState):
    """About 1 KB of text, and a counter."""

    count: int = 0
    text: str = "x" * 900
    notes: list[int] = []


class Long(WorkflowState):
    """A list that grows."""

    items: list[int] = []


class Keys(WorkflowState):
    """A dict that grows."""

    items: dict[str, int] = {}


class Page(WorkflowState):
    """A long text that is changed in its middle."""

    text: str = 'She said: "no", and left.\n' * 20_000


async def append(ctx: WorkflowContext, count: int) -> int:
    """Change the state so often."""
    for number in range(count):
        if isinstance(ctx.state, Long):
            ctx.state.items.append(number)
        elif isinstance(ctx.state, Keys):
            ctx.state.items[f"key{number * 7919 % count}"] = number
        elif isinstance(ctx.state, Page):
            at, text = 200_000 + number * 7919 % 100_000, ctx.state.text
            ctx.state.text = f"{text[:at]}{number}{text[at + 3 :]}"
        else:
            ctx.state.count += 1
            ctx.state.notes = [*ctx.state.notes[-8:], number]
        await ctx.step.uuid(f"step_{number}")
    return count


@workflow(id="bench_history", state_schema=Notes)
async def small(ctx: WorkflowContext, count: int) -> int:
    """Change a state of 1 KB."""
    return await append(ctx, count)


@workflow(id="bench_history_long", state_schema=Long)
async def long(ctx: WorkflowContext, count: int) -> int:
    """Append to a list."""
    return await append(ctx, count)


@workflow(id="bench_history_keys", state_schema=Keys)
async def keys(ctx: WorkflowContext, count: int) -> int:
    """Add to a dict."""
    return await append(ctx, count)


@workflow(id="bench_history_text", state_schema=Page)
async def text(ctx: WorkflowContext, count: int) -> int:
    """Change a text of 500 KB."""
    return await append(ctx, count)


def measure(session: Session) -> None:
    """Read versions from all over the history."""
    measure_one(session, "state_at", small)
    measure_one(session, "state_at_long", long)
    measure_one(session, "state_at_keys", keys)
    measure_one(session, "state_at_text", text, 2_000)


def measure_one(session: Session, name: str, work: Workflow[int], versions: int = 10_000) -> None:
    """Read versions of one execution; both the usual and the slow ones are reported."""
    count = session.size(versions, 200)
    usual: list[Pair] = []
    slow: list[Pair] = []

    async def once(client: PolosClient, raw: RawLog) -> Pair:
        del raw
        handle = await work.invoke(client, count)
        require(await handle.result(), count)
        times: list[float] = []
        for version in range(1, count + 1, EVERY):
            begun = time.perf_counter()
            await client.state_at(handle.id, seq=version)
            times.append((time.perf_counter() - begun) * 1e3)
        times.sort()
        slow.append((times[int(len(times) * 0.95)], None))
        return times[len(times) // 2], None

    usual += session.pairs(once)
    session.report(f"{name}_p50", "ms", usual)
    session.report(f"{name}_p95", "ms", slow)
