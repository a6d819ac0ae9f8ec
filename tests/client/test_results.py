# ruff: noqa: ASYNC110 - what is in a database can only be polled
"""Results come back typed: from workflows and steps, live, from the store, and falsy ones too."""

import asyncio
import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest
from pydantic import BaseModel

from polos import WorkflowContext, workflow
from polos.testing import Simulation


class Inner(BaseModel):
    at: dt.datetime
    tags: set[str] = set()


class Model(BaseModel):
    inner: Inner
    data: bytes = b""
    price: Decimal = Decimal(0)


@dataclass
class Data:
    x: int
    when: dt.date


class Struct(msgspec.Struct):
    a: int
    b: list[str]


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Name(StrEnum):
    ONE = "one"


class Pair(NamedTuple):
    left: int
    right: str


AT = dt.datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=dt.UTC)
VALUES: list[Any] = [
    None, False, True, 0, 1, -1, 2**70, 0.0, 1.5, 1e300, "", "text", "\u0000é\u2028", [], {}, (),
    [0], {"": None}, {"a": [1, {"b": ()}]}, b"", b"\x00\xff", set(), {1, 2}, frozenset({"a"}),
    (1, "a", None), [(1, 2)], {"t": (b"x", {1})}, Decimal("1.50"), UUID(int=5), AT,
    AT.replace(tzinfo=None), AT.date(), AT.time(), dt.timedelta(days=1, seconds=2), Color.RED,
    Level.LOW, Name.ONE, Model(inner=Inner(at=AT, tags={"a"}), data=b"\xff", price=Decimal("1.10")),
    Data(1, AT.date()), Struct(1, ["b"]), [Data(1, AT.date()), Struct(1, [])],
    {"m": Inner(at=AT), "c": Color.RED},
]  # fmt: skip

current: list[Any] = [None]


@workflow(id="results.untyped")
async def untyped(ctx: WorkflowContext):
    value = await ctx.step.run("value", lambda: current[0])
    assert same(value, current[0]), value
    return value


@workflow(id="results.collected")
async def collected(ctx: WorkflowContext):
    return [await ctx.step.run("value", lambda value=value: value) for value in VALUES]


@workflow(id="results.child")
async def child(ctx: WorkflowContext, index: int):
    return VALUES[index]


@workflow(id="results.parent")
async def parent(ctx: WorkflowContext, index: int):
    value = await ctx.step.invoke_and_wait("child", child, index)
    assert same(value, VALUES[index]), value
    return value


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are equal and of one type, through and through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
async def test_a_value_comes_back_as_it_was(simulation: Simulation, value: Any) -> None:
    current[0] = value
    handle = await untyped.invoke(simulation.client)
    assert same(await handle.result(), value)
    assert same((await handle.get())["result"], value)


async def test_a_list_of_everything(simulation: Simulation) -> None:
    assert same(await collected(simulation.client), VALUES)


async def test_a_replay_gives_the_same(simulation: Simulation) -> None:
    @workflow(id="results.replayed")
    async def replayed(ctx: WorkflowContext) -> bool:
        found = [await ctx.step.run("value", lambda v=value: v) for value in VALUES]
        await ctx.step.wait_for("evicted here", days=1)
        return same(found, VALUES)

    handle = await replayed.invoke(simulation.client)
    async with asyncio.timeout(100):
        while (await handle.get())["status"] == "queued":
            await asyncio.sleep(0)
    simulation.crash()
    await simulation.restart()
    assert await simulation.client.get_handle(handle.id).result() is True


@pytest.mark.parametrize("index", range(len(VALUES)))
async def test_a_childs_result_reaches_its_parent_typed(simulation: Simulation, index: int) -> None:
    assert same(await parent(simulation.client, index), VALUES[index])


@workflow(id="results.annotated")
async def annotated(ctx: WorkflowContext) -> list[Data]:
    return [Data(1, AT.date())]


@workflow(id="results.tuples")
async def tuples(ctx: WorkflowContext) -> tuple[int, Pair, OrderedDict[str, int]]:
    return 1, Pair(1, "b"), OrderedDict(a=1)


async def test_annotations_give_the_type(simulation: Simulation) -> None:
    assert await annotated(simulation.client) == [Data(1, AT.date())]
    first, pair, ordered = await tuples(simulation.client)
    assert first == 1
    assert pair == Pair(1, "b")
    assert dict(ordered) == {"a": 1}


async def test_a_result_is_not_the_object_that_the_body_kept(simulation: Simulation) -> None:
    kept: dict[str, list[int]] = {"a": [1]}

    @workflow(id="results.kept")
    async def keeping(ctx: WorkflowContext) -> list[int]:
        got = await ctx.step.run("kept", lambda: kept)
        kept["a"].append(2)
        return got["a"]

    assert await keeping(simulation.client) == [1]
