"""`patch_state`: people change the state of executions that wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, Field, computed_field

from polos import ConflictError, Workflow, WorkflowContext, WorkflowState, migrate, workflow
from polos.client.client import Client
from polos.errors import ExecutionNotFoundError, InvalidStateError, UsageError
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import ManualClock
from polos.workflow import registry
from tests.sim.helpers import (
    by_hand,
    is_blocked,
    is_ended,
    is_waiting,
    pass_time,
    until_shown,
)

World = dict[str, Any]


class Order(WorkflowState):
    amount: int = 0
    notes: list[str] = []
    ratio: float = 0.5


def define() -> Workflow[Any]:
    registry.default = registry.Registry()

    @workflow(id="order", state_schema=Order)
    async def order(ctx: WorkflowContext, days: int) -> dict[str, Any]:
        ctx.state.amount += 1
        await ctx.step.uuid("first")
        ctx.state.notes.append("before")
        if days:
            await ctx.step.wait_for("nap", days=days)
        seen = ctx.state.amount
        ctx.state.amount += 1
        await ctx.step.uuid("last")
        return {"seen": seen, "amount": ctx.state.amount, "notes": ctx.state.notes}

    return order


async def test_the_code_sees_a_patch_when_it_goes_on(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await order.invoke(client, 1)
        await until_shown(simulation, handle.id, is_waiting)
        shown = await client.patch_state(handle.id, {"amount": 40}, who="ann", why="typo")
        assert shown["state"] == {"amount": 40, "notes": ["before"], "ratio": 0.5}
        assert shown["status"] == "waiting"
        await pass_time(simulation, 90_000, step=5_000)
        shown = await until_shown(simulation, handle.id, is_ended)
        assert shown["result"] == {"seen": 40, "amount": 41, "notes": ["before"]}
        history = await client.state_history(handle.id)
        patched = next(each for each in history if "who" in each)
    assert (patched["who"], patched["why"]) == ("ann", "typo")
    assert patched["changes"] == [{"op": "replace", "path": "amount", "old": 1, "new": 40}]
    assert [each["step_key"] for each in history] == [None, "first", "nap", None, "last"]


@pytest.mark.parametrize("together", [False, True])
async def test_a_patch_comes_behind_what_the_code_did_before_its_first_step(
    world: World, together: bool
) -> None:
    @workflow(id="patched.first", state_schema=Order)
    async def order(ctx: WorkflowContext) -> Any:
        ctx.state.amount, ctx.state.notes = 1, ["before"]
        nap = ctx.step.wait_for("nap", days=1)
        await (asyncio.gather(nap, ctx.step.wait_for("other", hours=1)) if together else nap)
        return ctx.state.amount, ctx.state.notes

    async with by_hand(**world) as simulation:
        handle = await order.invoke(simulation.client)
        await until_shown(simulation, handle.id, is_waiting)
        await simulation.client.patch_state(handle.id, {"amount": 40})
        await simulation.client.patch_state(handle.id, {"notes": ["patched"]})
        await pass_time(simulation, 90_000, step=5_000)
        shown = await until_shown(simulation, handle.id, is_ended)
    assert shown["result"] == [40, ["patched"]]


async def test_a_patch_outlives_the_process(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        handle = await order.invoke(simulation.client, 1)
        await until_shown(simulation, handle.id, is_waiting)
        await simulation.client.patch_state(handle.id, {"amount": 40})
        await simulation.client.patch_state(handle.id, {"notes": []})
    order = define()
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 90_000, step=5_000)
        shown = await until_shown(simulation, handle.id, is_ended)
        assert shown["result"] == {"seen": 40, "amount": 41, "notes": []}


async def test_what_was_queued_begins_with_its_patch(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        runner = simulation.node.runner
        runner._concurrency = 0  # nothing begins here
        handle = await order.invoke(simulation.client, 0)
        await simulation.client.patch_state(handle.id, {"amount": 10})
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 30, step=1)
        shown = await until_shown(simulation, handle.id, is_ended)
    assert shown["result"]["seen"] == 11


async def test_a_patch_for_another_version_is_refused(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await order.invoke(client, 1)
        shown = await until_shown(simulation, handle.id, is_waiting)
        version = shown["state_version"]
        with pytest.raises(ConflictError, match=f"has version {version}, not {version - 1}"):
            await client.patch_state(handle.id, {"amount": 2}, if_version=version - 1)
        shown = await client.patch_state(handle.id, {"amount": 2}, if_version=version)
        assert shown["state_version"] == version + 1
        with pytest.raises(ConflictError):
            await client.patch_state(handle.id, {"amount": 3}, version)


async def test_patches_at_once_are_all_made(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await order.invoke(client, 1)
        await until_shown(simulation, handle.id, is_waiting)
        await asyncio.gather(
            client.patch_state(handle.id, {"amount": 2}),
            client.patch_state(handle.id, {"ratio": 2}),
            client.patch_state(handle.id, {"notes": ["x"]}),
        )
        shown = await client.get_execution(handle.id)
        assert shown["state"] == {"amount": 2, "notes": ["x"], "ratio": 2.0}


class Inner(BaseModel):
    sku: str = Field("", alias="theSku")
    count: int = Field(0, validation_alias=AliasChoices("n", "number"))

    @computed_field
    @property
    def doubled(self) -> int:
        return 2 * self.count


class Aliased(WorkflowState):
    total: int = Field(0, alias="theTotal")
    left: int = Field(0, validation_alias=AliasChoices("rest", "remaining"))
    inner: Inner = Inner.model_validate({})
    inners: list[Inner] = []
    raw: bytes = b""


ALIASED = Aliased.model_validate({}).model_dump(mode="json", round_trip=True)
PATCHES: list[tuple[Any, dict[str, Any]]] = [
    ({"theTotal": 1, "remaining": 2}, {"total": 1, "left": 2}),
    ({"total": 1, "left": 2}, {"total": 1, "left": 2}),
    ({"inner": Inner.model_validate({"theSku": "a", "n": 1})}, {"inner": {"sku": "a", "count": 1}}),
    ({"inner": {"theSku": "a", "number": 1}}, {"inner": {"sku": "a", "count": 1}}),
    ({"inners": [{"sku": "a", "count": 1}]}, {"inners": [{"sku": "a", "count": 1}]}),
    ({"raw": b"\xff\x00"}, {"raw": "_wA="}),
    (Aliased.model_validate({"theTotal": 3}), {"total": 3}),
]


@pytest.mark.parametrize(("given", "wanted"), PATCHES)
@pytest.mark.parametrize("how", ["patch", "fork", "start"])
async def test_fields_are_given_by_name_or_alias_as_plain_data_or_models(
    how: str, given: Any, wanted: dict[str, Any]
) -> None:
    registry.default = registry.Registry()

    @workflow(id="aliased", state_schema=Aliased)
    async def aliased(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("first")
        await ctx.step.wait_for("nap", days=1)

    async with by_hand(database=MemoryDatabase(), clock=ManualClock(auto=False)) as simulation:
        client = simulation.client
        handle = await aliased.invoke(client, initial_state=given if how == "start" else None)
        await until_shown(simulation, handle.id, is_waiting)
        if how == "patch":
            await client.patch_state(handle.id, given)
        elif how == "fork":
            handle = await handle.fork(at_step="first", state=given)
            await until_shown(simulation, handle.id, is_waiting)
        assert await handle.state() == ALIASED | wanted


async def test_who_and_why_are_short_and_blame_tells_them(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await order.invoke(client, 1)
        before = await until_shown(simulation, handle.id, is_waiting)
        wrong: list[dict[str, Any]] = [{"who": "x" * 201}, {"why": "x" * 2_001}, {"why": "a\0"}]
        for said in wrong:
            with pytest.raises(UsageError, match=next(iter(said))):
                await client.patch_state(handle.id, {"amount": 2}, **said)
        assert await client.get_execution(handle.id) == before
        await client.patch_state(handle.id, {"amount": 2}, who="ann", why="x" * 2_000)
        blamed = await client.blame_state(handle.id, "amount")
        assert (blamed["who"], blamed["why"]) == ("ann", "x" * 2_000)
        assert (blamed["step_key"], blamed["attempt"], blamed["code_version"]) == (None,) * 3
        assert "who" not in await client.blame_state(handle.id, "notes")


WRONG: list[tuple[Any, type[Exception], str]] = [
    ({}, UsageError, "at least one field"),
    ([1], UsageError, "expected a dict"),
    ({1: 2}, UsageError, "expected a dict"),
    ({"amount": "many"}, InvalidStateError, "amount: Input should be a valid integer"),
    ({"amout": 1}, InvalidStateError, "amout: the schema has no such field; it has amount"),
    ({"notes": object()}, InvalidStateError, "JSON cannot hold"),
    (Order(notes=["\ud800"]), InvalidStateError, "JSON cannot hold"),
]


@pytest.mark.parametrize(("patch", "error", "text"), WRONG)
async def test_what_does_not_fit_is_refused_and_nothing_is_written(
    patch: Any, error: type[Exception], text: str, world: World
) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        handle = await order.invoke(simulation.client, 1)
        before = await until_shown(simulation, handle.id, is_waiting)
        with pytest.raises(error, match=text):
            await simulation.client.patch_state(handle.id, patch)
        assert await simulation.client.get_execution(handle.id) == before


async def test_what_runs_or_has_ended_is_not_patched(world: World) -> None:
    order = define()

    @workflow(state_schema=Order)
    async def patient(ctx: WorkflowContext) -> None:
        await ctx.step.run("hold", hold)

    async def hold() -> None:
        await asyncio.Event().wait()

    async with by_hand(**world) as simulation:
        client: Client = simulation.client
        handle = await order.invoke(client, 0)
        await until_shown(simulation, handle.id, is_ended)
        with pytest.raises(ConflictError, match="is completed"):
            await client.patch_state(handle.id, {"amount": 1})
        with pytest.raises(ExecutionNotFoundError):
            await client.patch_state("nobody", {"amount": 1})
        running = await patient.invoke(client)
        await pass_time(simulation, 1)
        with pytest.raises(ConflictError, match="is running"):
            await client.patch_state(running.id, {"amount": 1})


async def test_a_patch_repairs_a_state_that_does_not_load(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        handle = await order.invoke(simulation.client, 1)
        await until_shown(simulation, handle.id, is_waiting)
    registry.default = registry.Registry()

    class Strict(WorkflowState):
        amount: str
        notes: list[str] = []
        ratio: float = 0.5

    @workflow(id="order", state_schema=Strict)
    async def strict(ctx: WorkflowContext, days: int) -> str:
        await ctx.step.uuid("first")
        ctx.state.notes.append("again")
        await ctx.step.wait_for("nap", days=days)
        return f"{ctx.state.amount} {ctx.state.notes}"

    del strict
    async with by_hand(**world) as simulation:
        client = simulation.client
        await pass_time(simulation, 90_000, step=5_000)
        await until_shown(simulation, handle.id, is_blocked)
        with pytest.raises(InvalidStateError):
            await client.patch_state(handle.id, {"ratio": 0.75})
        await client.patch_state(handle.id, {"amount": "one"}, why="was a number")
        shown = await until_shown(simulation, handle.id, is_ended)
    assert shown["result"] == "one ['before']"
    assert shown["state"] == {"amount": "one", "notes": ["before"], "ratio": 0.5}


async def test_a_patch_repairs_a_state_that_does_not_migrate(world: World) -> None:
    order = define()
    async with by_hand(**world) as simulation:
        handle = await order.invoke(simulation.client, 1)
        await until_shown(simulation, handle.id, is_waiting)
    registry.default = registry.Registry()

    class Newer(WorkflowState, version=2):
        amount: int = 0
        currency: str = ""

        @migrate(from_version=1)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            return {"amount": data["amount"], "currency": data["country"]}

    @workflow(id="order", state_schema=Newer)
    async def newer(ctx: WorkflowContext, days: int) -> str:
        await ctx.step.uuid("first")
        await ctx.step.wait_for("nap", days=days)
        return f"{ctx.state.amount} {ctx.state.currency}"

    del newer
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 90_000, step=5_000)
        shown = await until_shown(simulation, handle.id, is_blocked)
        assert "raised KeyError: 'country'" in shown["blocked_reason"]
        with pytest.raises(InvalidStateError, match="country"):
            await simulation.client.patch_state(handle.id, {"amount": 5})
        await simulation.client.patch_state(handle.id, {"amount": 5, "currency": "EUR"})
        shown = await until_shown(simulation, handle.id, is_ended)
    assert shown["result"] == "5 EUR"


def define_version(version: int) -> Workflow[Any]:
    """Register the order as one of three versions of its schema has it."""
    registry.default = registry.Registry()

    class First(WorkflowState):
        amount: int = 0
        notes: list[str] = []

    class Second(WorkflowState, version=2):
        amount: int = 0
        lines: list[str] = []

        @migrate(from_version=1)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            data["lines"] = data.pop("notes")
            return data

    class Third(WorkflowState, version=3):
        cents: int = 0
        lines: list[str] = []

        @migrate(from_version=1)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            data["lines"] = data.pop("notes")
            return data

        @migrate(from_version=2)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            data["cents"] = data.pop("amount") * 100
            return data

    schema = (First, Second, Third)[version - 1]

    @workflow(id="order", state_schema=schema)
    async def order(ctx: WorkflowContext, days: int) -> dict[str, Any]:
        def note() -> None:
            (ctx.state.notes if version == 1 else ctx.state.lines).append("noted")

        await ctx.step.run("first", note)
        await ctx.step.wait_for("nap", days=days)
        await ctx.step.uuid("last")
        return ctx.state.model_dump()

    return order


async def test_a_patch_by_new_code_of_old_state_outlives_still_newer_code(world: World) -> None:
    order = define_version(1)
    async with by_hand(**world) as simulation:
        handle = await order.invoke(simulation.client, 1)
        await until_shown(simulation, handle.id, is_waiting)
    define_version(2)
    async with by_hand(**world) as simulation:
        await simulation.client.patch_state(handle.id, {"amount": 5})
    define_version(3)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 90_000, step=5_000)
        shown = await until_shown(simulation, handle.id, is_ended)
    assert shown["result"] == shown["state"] == {"cents": 500, "lines": ["noted"]}


class Loose(WorkflowState):
    any: list[Any] = []


async def test_a_patch_that_nobody_could_read_is_refused(world: World) -> None:
    registry.default = registry.Registry()

    @workflow(id="loose", state_schema=Loose)
    async def loose(ctx: WorkflowContext) -> int:
        await ctx.step.wait_for("nap", days=1)
        return len(ctx.state.any)

    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await loose.invoke(client)
        await until_shown(simulation, handle.id, is_waiting)
        deep: list[Any] = []
        for _ in range(220):
            deep = [deep]
        with pytest.raises(InvalidStateError, match="recursion limit"):
            await client.patch_state(handle.id, {"any": deep})
        assert (await client.get_execution(handle.id))["state_version"] == 0
        simulation.clock.advance(86_400)
        assert await handle.result() == 0
