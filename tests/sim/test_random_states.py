"""State schemas and programs made at random, dying at commits, end like plain Python."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polos import StepExecutionError, WorkflowContext, workflow
from polos.core import delta
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import Simulation
from polos.testing.postgres import PostgresDatabase
from polos.testing.simulation import Crashed
from polos.workflow import registry
from polos.workflow.state import StateSchema
from tests.postgres import NAMES, fresh_url
from tests.sim import shapes
from tests.sim.shapes import Shape, Whole, plain

Op = tuple[str, int]
Death = tuple[int, str]
WAYS = ["code", "code", "silent", "body", "body", "retry", "failed", "copy", "whole", "wait", "two"]


def inside(of: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    """Return shapes that have those of a strategy inside."""
    some = st.lists(of, min_size=1, max_size=3)
    leaf = st.sampled_from(shapes.HASHABLE)
    styles = ["plain", "alias", "extra", "checked", "frozen", "dataclass", "typed dict"]
    return st.one_of(
        st.builds(shapes.Listed, of),
        st.builds(shapes.Listed, of, st.just(shapes.deque)),
        st.builds(shapes.Members, leaf, st.sampled_from([set, frozenset])),
        st.builds(shapes.Tupled, some),
        st.builds(shapes.Tupled, some, st.just(True)),
        st.builds(shapes.Mapped, leaf, of),
        st.builds(shapes.Maybe, of),
        st.builds(shapes.Boxed, of),
        st.builds(shapes.Rooted, of),
        st.builds(shapes.Fields, st.sampled_from(styles), some),
        st.builds(shapes.Tagged, some, some),
    )


leaves_: st.SearchStrategy[Shape] = st.sampled_from(shapes.LEAVES)
shapes_ = st.recursive(leaves_, inside, max_leaves=6)
wholes_ = st.builds(
    Whole, st.lists(shapes_, min_size=1, max_size=4), st.integers(0, 999), st.booleans()
)
ops_ = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(0, 10**6)), min_size=1, max_size=8)
deaths_ = st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["before", "after"])), max_size=3)


@dataclass
class Program:
    """A workflow that changes its state, and what it saw that plain Python would not have."""

    whole: Whole
    ops: list[Op]
    expected: list[Any] = field(default_factory=list[Any])
    wrong: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        state: Any = self.whole.schema()
        self.expected = [plain(state)]
        for op in self.ops:
            state = self.imitate(state, op)
            self.expected.append(plain(state))

    def imitate(self, state: Any, op: Op) -> Any:
        """Do to a plain instance what the workflow does to its state."""
        way, seed = op
        if way == "failed":
            return state
        if way == "two":
            for branch in self.branches(seed):
                self.whole.change(state, *branch)
            return state
        if way == "copy":
            state = state.model_copy(deep=True)
        elif way == "whole":
            state = again(state)
        self.whole.change(state, seed)
        return state

    def branches(self, seed: int) -> list[tuple[int, int]]:
        """Return seeds and fields of changes that two branches make."""
        fields = list(range(len(self.whole.shapes)))
        Random(seed).shuffle(fields)
        return [(seed + n, each) for n, each in enumerate(fields[:2])]

    def look(self, ctx: WorkflowContext, n: int, where: str) -> None:
        """Compare the state that the code has with that of plain Python."""
        if (seen := plain(ctx.state)) != self.expected[n]:
            self.wrong.append(f"{where} {n}:\n{seen} is not\n{self.expected[n]}")

    async def do(self, ctx: WorkflowContext, n: int, op: Op) -> None:
        """Make one change of the state in the way of the operation."""
        way, seed = op
        key = f"{n} {way}"
        failing = {"retry": 1, "failed": 9}.get(way, 0)
        state: Any = ctx.state

        def body(seed: int, only: int | None = None) -> None:
            nonlocal failing
            self.whole.change(ctx.state, seed, only)
            failing -= 1
            if failing >= 0:
                raise ValueError(key)

        if way in ("body", "retry"):
            await ctx.step.run(key, body, seed, base_delay=0)
        elif way == "failed":
            with pytest.raises(StepExecutionError):
                await ctx.step.run(key, body, seed, max_retries=0)
        elif way == "two":
            each = [ctx.step.run(f"{key} {f}", body, s, f) for s, f in self.branches(seed)]
            await asyncio.gather(*each)
        elif way in ("copy", "whole"):
            changed = state.model_copy(deep=True) if way == "copy" else again(state)
            self.whole.change(changed, seed)
            ctx.state = changed
            await ctx.step.uuid(key)
        else:
            self.whole.change(state, seed)
            state._private += 1
            if way == "wait":
                await ctx.step.wait_for(key, seconds=90)
            elif way == "code":
                await ctx.step.uuid(key)

    def define(self) -> Any:
        """Register the workflow."""
        registry.default = registry.Registry()

        @workflow(id="program", state_schema=self.whole.schema)
        async def program(ctx: WorkflowContext) -> None:
            for n, op in enumerate(self.ops):
                self.look(ctx, n, "before")
                await self.do(ctx, n, op)
            self.look(ctx, len(self.ops), "at the end")

        return program


def again(state: Any) -> Any:
    """Return another instance with the same values."""
    return type(state).model_validate(state.model_dump(by_alias=True, round_trip=True))


def dying(death: Death) -> Callable[[str], None]:
    commits = 0

    def gate(moment: str) -> None:
        nonlocal commits
        commits += moment == "begin"
        if (commits, moment) == death:
            raise Crashed

    return gate


async def run(program: Program, database: Any, deaths: list[Death]) -> None:
    """Run a program, dying at commits; compare its state at every point and in the end."""
    code = program.define()
    async with Simulation(database=database) as simulation:
        handle = await code.invoke(simulation.client)
        for death in deaths:
            simulation.on_transaction(dying(death))
            for _ in range(200):
                await asyncio.sleep(0)
            simulation.crash()
            await simulation.restart()
        simulation.on_transaction(None)
        client = simulation.client
        await client.get_handle(handle.id).result()
        assert not program.wrong, program.wrong[0]
        history = await client.state_history(handle.id)
        assert [each["seq"] for each in history] == list(range(len(history)))
        assert history[-1]["state"] == (await client.get_execution(handle.id))["state"]
        record = await simulation.node.engine.require(handle.id)
        entries = await simulation.store.latest_states(record.root_id, record.id)
        schema = StateSchema(program.whole.schema)
        fields = delta.replay(each.jump or each.body for each in entries)
        assert plain(schema.load(fields)) == program.expected[-1]


def own_registry(program: Program, database: Any, deaths: list[Death]) -> None:
    before = registry.default
    try:
        asyncio.run(run(program, database, deaths))
    finally:
        registry.default = before


ANY_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(ANY_TIME, max_examples=60)
@given(wholes_, ops_, deaths_)
def test_random_states_are_at_every_point_what_plain_python_has(
    whole: Whole, ops: list[Op], deaths: list[Death]
) -> None:
    own_registry(Program(whole, ops), MemoryDatabase(), deaths)


@pytest.mark.slow
@settings(ANY_TIME, max_examples=300)
@given(wholes_, ops_, deaths_)
def test_many_random_states_are_what_plain_python_has(
    whole: Whole, ops: list[Op], deaths: list[Death]
) -> None:
    own_registry(Program(whole, ops), MemoryDatabase(), deaths)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_random_states_are_what_plain_python_has_on_postgres(name: str) -> None:
    database = PostgresDatabase(fresh_url(name))

    @settings(ANY_TIME, max_examples=25)
    @given(wholes_, ops_, deaths_)
    def many(whole: Whole, ops: list[Op], deaths: list[Death]) -> None:
        asyncio.run(database.clean())
        own_registry(Program(whole, ops), database, deaths)

    many()
