"""A state of 1 MB of which every step changes a little."""

from __future__ import annotations

from pathlib import Path

import apsw
from pydantic import BaseModel

from bench.raw import AGAINST_TIME, RawLog
from bench.report import Pair
from bench.session import Session, stopwatch
from bench.workflows import Plan, expected, give, require
from polos import PolosClient, Workflow, WorkflowContext, WorkflowState, workflow

# Just below the limit of 1,048,576 bytes.
BYTES = 1_040_000
RAW_ROWS = 200
STORED = "SELECT coalesce(sum(length(CAST(body AS BLOB))), 0) FROM state WHERE version > 0"


class Flat(WorkflowState):
    """Plain strings and numbers."""

    done: int = 0
    lines: list[str] = []


class Place(BaseModel):
    """A model in a model."""

    x: float
    y: float


class Item(BaseModel):
    """One of thousands in a state."""

    name: str
    size: int
    tags: list[str]
    place: Place


class Nested(WorkflowState):
    """Models of models."""

    done: int = 0
    items: list[Item] = []


def flat() -> Flat:
    """Return a state of 1 MB of strings."""
    return Flat(lines=[f"line {n:06} {'x' * 86}" for n in range(BYTES // 101)])


def nested() -> Nested:
    """Return a state of 1 MB of models."""
    items = [
        Item(name=f"item {n:06}", size=n, tags=["one", "two"], place=Place(x=n, y=0.5))
        for n in range(BYTES // 85)
    ]
    return Nested(items=items)


@workflow(id="bench_flat", state_schema=Flat)
async def change_flat(ctx: WorkflowContext, plan: Plan) -> int:
    """Change one line of the state at every step."""
    total = 0
    for number in range(plan.steps):
        total += await ctx.step.run(f"step_{number}", give, number)
        ctx.state.done += 1
        ctx.state.lines[number * 37 % len(ctx.state.lines)] = f"changed in step {number}"
    return total


@workflow(id="bench_nested", state_schema=Nested)
async def change_nested(ctx: WorkflowContext, plan: Plan) -> int:
    """Change one model of the state at every step."""
    total = 0
    for number in range(plan.steps):
        total += await ctx.step.run(f"step_{number}", give, number)
        ctx.state.done += 1
        ctx.state.items[number * 37 % len(ctx.state.items)].tags.append(f"step {number}")
    return total


@workflow(id="bench_nested_two", state_schema=Nested)
async def change_two(ctx: WorkflowContext, plan: Plan) -> int:
    """Change the first and the last model of the state at every step."""
    total = 0
    for number in range(plan.steps):
        total += await ctx.step.run(f"step_{number}", give, number)
        ctx.state.items[0].size += 1
        ctx.state.items[-1].size += 1
    return total


def stored_bytes(database: Path) -> int:
    """Return the bytes of all state entries but the first, the initial state."""
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    found = int(next(iter(connection.execute(STORED)))[0])
    connection.close()
    return found


def check_size(state: WorkflowState) -> None:
    """Refuse a state that is not what its name says."""
    size = len(state.model_dump_json())
    if not 0.95 * BYTES < size < 1_045_000:
        raise RuntimeError(f"{type(state).__name__} has {size:,} bytes; expected {BYTES:,}")


def measure(session: Session) -> None:
    """Measure time and stored bytes per step."""
    plan = Plan(steps=session.size(200, 10))
    cases: list[tuple[str, Workflow[int], WorkflowState]] = [
        ("flat", change_flat, flat()),
        ("nested", change_nested, nested()),
        ("nested_two_places", change_two, nested()),
    ]
    for name, work, state in cases:
        check_size(state)
        stored: list[Pair] = []

        async def once(
            client: PolosClient,
            raw: RawLog,
            work: Workflow[int] = work,
            state: WorkflowState = state,
            stored: list[Pair] = stored,
        ) -> Pair:
            rows = session.size(RAW_ROWS, 10)
            limit = raw.seconds(rows) / rows * 1e3
            database = Path(raw.connection.filename).parent / "polos.db"
            handle = await work.invoke(client, Plan(steps=2), initial_state=state)
            await handle.result()
            before = stored_bytes(database)
            handle = await work.invoke(client, plan, initial_state=state)
            with stopwatch() as took:
                require(await handle.result(), expected(plan))
            stored.append(((stored_bytes(database) - before) / plan.steps, None))
            return took.seconds / plan.steps * 1e3, limit

        session.report(name, "ms/step", session.pairs(once), AGAINST_TIME)
        session.report(f"{name}_stored", "bytes/step", stored)
