"""Keyed, patched and evolving state together with forks, resets, declared fields and new runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos import ConflictError, Workflow, WorkflowContext, WorkflowState, migrate, workflow
from polos.workflow import registry
from tests.sim.helpers import by_hand, is_ended, is_waiting, pass_time, until_shown

World = dict[str, Any]


class Cart(WorkflowState):
    items: list[str] = []
    total: int = 0


def define() -> Workflow[Any]:
    registry.default = registry.Registry()

    @workflow(
        id="cart",
        state_schema=Cart,
        state_key=lambda input: input["customer"],
        index_state=["total"],
    )
    async def cart(ctx: WorkflowContext, input: dict[str, Any]) -> list[str]:
        ctx.state.items.append(input["item"])
        await ctx.step.uuid("added")
        if input.get("again"):
            ctx.continue_as_new(input | {"item": "again", "again": False})
        if input.get("nap"):
            await ctx.step.wait_for("nap", days=1)
        ctx.state.total += 1
        await ctx.step.uuid("counted")
        return list(ctx.state.items)

    return cart


def order(item: str, **options: Any) -> dict[str, Any]:
    return {"customer": "ann", "item": item, **options}


async def found(client: Any, total: int) -> list[str]:
    return [e["id"] for e in (await client.list_executions(where={"state.total": total}))]


async def test_a_reset_holds_the_key_again_or_is_refused(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        first = await client.invoke("cart", order("a"))
        assert await first.result() == ["a"]
        await client.reset(first.id, to_step="added", dry_run=True)
        await client.reset(first.id, to_step="added")
        assert await first.result() == ["a"]
        assert await client.get_state(cart, "ann") == {"items": ["a"], "total": 1}
        second = await client.invoke("cart", order("b"))
        assert await second.result() == ["a", "b"]
        for dry_run in (True, False):
            with pytest.raises(ConflictError, match="cannot be reset"):
                await client.reset(first.id, to_step="added", dry_run=dry_run)
        await client.reset(second.id, to_step="added")
        assert await second.result() == ["a", "b"]
        assert await client.get_state(cart, "ann") == {"items": ["a", "b"], "total": 2}
        await client.set_state(cart, "ann", {"items": [], "total": 9})
        with pytest.raises(ConflictError, match="was changed since it completed"):
            await client.reset(second.id, to_step="added")


async def test_a_fork_takes_no_key(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        first = await client.invoke("cart", order("a"))
        await first.result()
        fork = await client.fork(first.id, at_step="added", state={"items": ["z"]})
        assert await fork.result() == ["z"]
        assert await client.get_state(cart, "ann") == {"items": ["a"], "total": 1}


async def test_a_new_run_keeps_its_key(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        first = await client.invoke("cart", order("a", again=True))
        second = await client.invoke("cart", order("b"))
        assert await first.result() == ["a", "again"]
        assert await second.result() == ["a", "again", "b"]
        assert await client.get_state(cart, "ann") == {"items": ["a", "again", "b"], "total": 2}


async def test_declared_fields_follow_the_key_and_patches(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        await cart(client, order("a"))
        sleeper = await client.invoke("cart", order("b", nap=True))
        follower = await client.invoke("cart", order("c"))
        await until_shown(simulation, sleeper.id, is_waiting)
        assert sleeper.id in await found(client, 1)
        await client.patch_state(sleeper.id, {"total": 40})
        assert await found(client, 40) == [sleeper.id]
        await client.cancel_execution(sleeper.id)
        await until_shown(simulation, follower.id, is_ended)
        assert await found(client, 41) == [follower.id]


def define_v2() -> Workflow[Any]:
    registry.default = registry.Registry()

    class Tally(WorkflowState, version=2):
        count: int = 0

        @migrate(from_version=1)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            return {"count": data["n"]}

    @workflow(id="tally", state_schema=Tally)
    async def tally(ctx: WorkflowContext, payload: int) -> int:
        ctx.state.count += 1
        await ctx.step.uuid("one")
        ctx.state.count += 1
        await ctx.step.uuid("two")
        if payload:
            ctx.continue_as_new(payload - 1)
        return ctx.state.count

    return tally


def define_v1() -> Workflow[Any]:
    registry.default = registry.Registry()

    class Tally(WorkflowState):
        n: int = 0

    @workflow(id="tally", state_schema=Tally)
    async def tally(ctx: WorkflowContext, payload: int) -> int:
        ctx.state.n += 1
        await ctx.step.uuid("one")
        ctx.state.n += 1
        await ctx.step.uuid("two")
        return ctx.state.n

    return tally


async def test_states_of_an_older_schema_are_forked_and_reset(world: World) -> None:
    define_v1()
    async with by_hand(**world) as simulation:
        old = await simulation.client.invoke("tally", 0)
        assert await old.result() == 2
    define_v2()
    async with by_hand(**world) as simulation:
        client = simulation.client
        forked = await client.fork(old.id, at_step="one", state={"count": 10})
        assert await forked.result() == 11
        plain = await client.fork(old.id, at_step="one")
        assert await plain.result() == 2
        again = client.get_handle(old.id)
        await client.reset(old.id, to_step="one")
        assert await again.result() == 2
        await client.reset(old.id, to_step="one")
        assert await again.result() == 2
        assert await again.state() == {"count": 2}


async def test_new_runs_record_the_schema_of_their_state(world: World) -> None:
    tally = define_v2()
    async with by_hand(**world) as simulation:
        handle = await tally.invoke(simulation.client, 1)
        shown = await until_shown(simulation, handle.id, is_ended)
        assert shown["result"] == 4


async def test_who_watches_one_that_is_behind_sees_what_it_begins_with(world: World) -> None:
    define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        sleeper = await client.invoke("cart", order("a", nap=True))
        follower = await client.invoke("cart", order("b"))
        await until_shown(simulation, sleeper.id, is_waiting)
        seen: list[Any] = []
        many: list[Any] = []

        async def look() -> None:
            async for each in client.watch_state(follower.id):
                seen.append(each["state"])

        async def look_at_all() -> None:
            async for each in client.watch("cart"):
                if each["execution_id"] == follower.id:
                    many.append(each["state"])
                    if each["state"]["total"] == 1:
                        return

        looks = asyncio.gather(look(), look_at_all())
        await pass_time(simulation, 1)
        assert (seen, many) == ([], [])
        await client.cancel_execution(sleeper.id)
        await until_shown(simulation, follower.id, is_ended)
        await pass_time(simulation, 1)
        await looks
        last = {"items": ["a", "b"], "total": 1}
        assert seen[-1] == many[-1] == last
        assert all(each["items"][0] == "a" for each in [*seen, *many])
