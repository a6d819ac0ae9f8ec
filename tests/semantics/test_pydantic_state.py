"""All that pydantic has comes back as it was, after a real replay; all ways to change it count."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, computed_field

from polos import WorkflowContext, WorkflowState, workflow
from polos.core import delta
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import Simulation
from polos.testing.postgres import PostgresDatabase
from polos.testing.simulation import Crashed
from polos.workflow import registry
from polos.workflow.state import StateSchema
from tests.postgres import NAMES, fresh_url
from tests.sim.shapes import Color, Level

T = TypeVar("T")


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Box(BaseModel, Generic[T]):
    content: T
    label: str = ""


@dataclass
class Point:
    x: int = 0
    tags: set[str] = field(default_factory=set[str])


class Leaf(BaseModel):
    model_config = ConfigDict(validate_assignment=True)
    name: str = ""
    when: dt.datetime | None = None


class Everything(WorkflowState):
    model_config = ConfigDict(extra="allow")

    leaf: Leaf = Leaf()
    leaves: dict[str, list[Leaf]] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] = Cat()
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    alias: int = Field(default=0, alias="theAlias")
    box: Box[int] = Box[int](content=0)
    boxes: Box[list[Box[str]]] = Box[list[Box[str]]](content=[])
    point: Point = Point()
    moment: dt.datetime = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    day: dt.date = dt.date(2020, 1, 1)
    span: dt.timedelta = dt.timedelta(0)
    color: Color = Color.RED
    level: Level = Level.LOW
    price: Decimal = Decimal("0.10")
    seen: set[int] = set()
    fixed: frozenset[str] = frozenset()
    pair: tuple[int, str] = (0, "")
    many: tuple[float, ...] = ()
    id: UUID = UUID(int=0)
    raw: bytes = b""
    ratio: float = 0.0
    maybe: int | None = None
    by_level: dict[int, Color] = {}
    _private: int = PrivateAttr(default=0)

    @computed_field
    @property
    def doubled(self) -> int:
        return self.box.content * 2


Change = Callable[[Everything], Any]


def _set(name: str, value: Any) -> Change:
    return lambda s: setattr(s, name, value)


def _plus(s: Everything) -> None:
    s.alias += 1
    s.price += Decimal("0.05")
    s.many += (1.5,)
    s.pets += [Dog(tricks=["sit"])]
    s.span += dt.timedelta(microseconds=1)


CHANGES: dict[str, Change] = {
    "nested": lambda s: setattr(s.leaf, "name", s.leaf.name + "é"),
    "nested_moment": lambda s: setattr(
        s.leaf, "when", dt.datetime(2021, 5, 6, 7, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    ),
    "dict_of_lists": lambda s: s.leaves.setdefault("a", []).append(Leaf(name="new")),
    "deep": lambda s: [setattr(each, "name", "x") for v in s.leaves.values() for each in v],
    "dog": _set("pet", Dog(tricks=["roll"])),
    "cat": _set("pet", Cat(lives=3)),
    "append": lambda s: s.pets.append(Cat()),
    "pop": lambda s: s.pets.pop() if s.pets else None,
    "plus": _plus,
    "box": lambda s: setattr(s.box, "content", s.box.content + 1),
    "boxes": lambda s: s.boxes.content.append(Box[str](content="in", label="l")),
    "point": lambda s: (setattr(s.point, "x", s.point.x + 1), s.point.tags.add(str(s.point.x))),
    "moment": _set("moment", dt.datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=dt.UTC)),
    "day": _set("day", dt.date(2024, 2, 29)),
    "color": _set("color", Color.BLUE),
    "level": _set("level", Level.HIGH),
    "seen": lambda s: s.seen.update({3, 1, len(s.seen)}),
    "unseen": lambda s: s.seen.discard(1),
    "fixed": _set("fixed", frozenset({"b", "a"})),
    "pair": _set("pair", (7, "seven")),
    "id": _set("id", UUID(int=7)),
    "raw": lambda s: setattr(s, "raw", s.raw + b"\x00\xff"),
    "infinite": _set("ratio", float("inf")),
    "maybe": lambda s: setattr(s, "maybe", None if s.maybe else 1),
    "by_level": lambda s: s.by_level.update({len(s.by_level): Color.BLUE}),
    "extra": _set("unknown", {"any": [1, None, "x"]}),
    "clear": lambda s: s.leaves.clear(),
}


def _step(ctx: WorkflowContext, name: str) -> None:
    """Make one change, in one of the ways that code has."""
    how, _, change = name.partition(":")
    if how == "copy":
        copied = ctx.state.model_copy(deep=True)
        CHANGES[change](copied)
        ctx.state = copied
    elif how == "whole":
        whole = Everything.model_validate(ctx.state.model_dump(by_alias=True, round_trip=True))
        CHANGES[change](whole)
        ctx.state = whole
    else:
        CHANGES[change](ctx.state)


def define() -> Any:
    registry.default = registry.Registry()

    @workflow(id="everything", state_schema=Everything)
    async def everything(ctx: WorkflowContext, names: list[str]) -> None:
        for n, name in enumerate(names):
            ctx.state._private = 1
            if name.startswith("body:"):
                await ctx.step.run(f"s{n}", _step, ctx, name)
            else:
                _step(ctx, name)
                await ctx.step.uuid(f"s{n}")

    return everything


def expected(names: list[str]) -> Everything:
    """Make the same changes to a plain instance."""
    state = Everything()
    for name in names:
        CHANGES[name.partition(":")[2]](state)
    return state


async def run(names: list[str], database: Any, deaths: list[tuple[int, str]]) -> Any:
    """Run a program of changes, dying at commits; returns the state as it is recorded."""
    program = define()
    async with Simulation(database=database) as simulation:
        handle = None
        for at, where in [*deaths, (0, "")]:
            commits = 0

            def gate(moment: str, at: int = at, where: str = where) -> None:
                nonlocal commits
                commits += moment == "begin"
                if at and commits == at and moment == where:
                    raise Crashed

            simulation.on_transaction(gate)
            if handle is None:
                simulation.on_transaction(None)
                handle = await program.invoke(simulation.client, names)
                simulation.on_transaction(gate)
            if at:
                for _ in range(400):
                    await asyncio.sleep(0)
                simulation.crash()
                await simulation.restart()
        simulation.on_transaction(None)
        assert handle is not None
        await simulation.client.get_handle(handle.id).result()
        record = await simulation.node.engine.require(handle.id)
        return await simulation.store.latest_states(record.root_id, record.id)


@pytest.fixture(params=["sqlite", *NAMES])
async def database(request: pytest.FixtureRequest) -> Any:
    if request.param == "sqlite":
        return MemoryDatabase()
    found = PostgresDatabase(fresh_url(request.param))
    await found.clean()
    return found


def read(entries: Any) -> Everything:
    fields = delta.replay(each.jump or each.body for each in entries)
    loaded = StateSchema(Everything).load(fields)
    assert isinstance(loaded, Everything)
    return loaded


@pytest.mark.parametrize("how", ["code", "body", "copy", "whole"])
async def test_every_kind_of_field_comes_back_however_it_was_changed(
    how: str, database: Any
) -> None:
    names = [f"{how}:{name}" for name in CHANGES]
    deaths = [(3, "before"), (len(names) // 2, "after")]
    state = read(await run(names, database, deaths))
    wanted = expected(names)
    assert state == wanted
    assert state.model_dump() == wanted.model_dump()
    assert state.model_extra == {"unknown": {"any": [1, None, "x"]}}
    assert state._private == 0
    assert state.doubled == 2


names_ = st.builds(
    "{}:{}".format, st.sampled_from(["code", "body", "copy"]), st.sampled_from(sorted(CHANGES))
)
deaths_ = st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["before", "after"])), max_size=3)


@settings(max_examples=30, deadline=None)
@given(names=st.lists(names_, min_size=1, max_size=10), deaths=deaths_)
def test_random_programs_that_die_end_like_plain_python(
    names: list[str], deaths: list[tuple[int, str]]
) -> None:
    before = registry.default
    try:
        entries = asyncio.run(run(names, MemoryDatabase(), deaths))
    finally:
        registry.default = before
    assert read(entries) == expected(names)
