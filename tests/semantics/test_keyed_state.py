"""Keyed state, as authors and callers meet it: one at a time, each on what the last one left."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import Field

from polos import (
    ConflictError,
    ExecutionFailedError,
    StepExecutionError,
    Workflow,
    WorkflowContext,
    WorkflowState,
    migrate,
    workflow,
)
from polos.errors import (
    InvalidPayloadError,
    InvalidStateError,
    UsageError,
    WorkflowDefinitionError,
)
from polos.workflow import registry
from tests.sim.helpers import by_hand, is_ended, is_waiting, pass_time, until_shown
from tests.store.records import worker

World = dict[str, Any]


class Cart(WorkflowState):
    items: list[str] = []
    total: int = 0


Payload = dict[str, Any]


def define(**options: Any) -> Workflow[Any]:
    registry.default = registry.Registry()

    @workflow(id="cart", state_schema=Cart, state_key=lambda input: input["customer"], **options)
    async def cart(ctx: WorkflowContext, input: Payload) -> list[str]:
        ctx.state.items.append(input["item"])
        await ctx.step.uuid("added")
        if input.get("days"):
            await ctx.step.wait_for("nap", days=input["days"])
        ctx.state.total += 1
        await ctx.step.uuid("counted")
        if input.get("fail"):
            raise ValueError("out of stock")
        return list(ctx.state.items)

    return cart


def order(item: str, customer: Any = "ann", **options: Any) -> Payload:
    return {"customer": customer, "item": item, **options}


async def test_each_begins_with_what_the_one_before_left(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        assert await cart(client, order("a")) == ["a"]
        assert await cart(client, order("b")) == ["a", "b"]
        assert await cart(client, order("x", "bob")) == ["x"]
        state = await client.get_state(cart, "ann")
        assert state is not None
        assert state == {"items": ["a", "b"], "total": 2}
        assert state.version == 2
        assert await client.get_state("cart", "bob") == {"items": ["x"], "total": 1}
        assert await client.get_state(cart, "cid") is None
        assert await client.list_state_keys(cart) == ["ann", "bob"]


async def test_those_with_one_key_run_one_after_the_other_in_the_order_of_their_starts(
    world: World,
) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        handles = [await cart.invoke(client, order(str(n), days=1)) for n in range(3)]
        other = await cart.invoke(client, order("x", "bob"))
        await until_shown(simulation, other.id, is_ended)
        shown = [await client.get_execution(each.id) for each in handles]
        assert [each["status"] for each in shown] == ["waiting", "queued", "queued"]
        for n, handle in enumerate(handles):
            await until_shown(simulation, handle.id, is_waiting)
            await pass_time(simulation, 90_000, step=10_000)
            ended = await until_shown(simulation, handle.id, is_ended)
            assert ended["result"] == [str(each) for each in range(n + 1)]


async def test_many_at_once_lose_nothing(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        await asyncio.gather(*(cart(client, order(str(n))) for n in range(8)))
        state = await client.get_state(cart, "ann")
        assert state is not None
        assert state["total"] == 8
        assert state["items"] == [str(n) for n in range(8)]


async def test_a_failure_keeps_what_was_recorded(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        await cart(client, order("a"))
        with pytest.raises(ExecutionFailedError):
            await cart(client, order("b", fail=True))
        assert await client.get_state(cart, "ann") == {"items": ["a", "b"], "total": 2}
        assert await cart(client, order("c")) == ["a", "b", "c"]


async def test_what_does_not_fit_is_not_left_to_the_next_one(world: World) -> None:
    registry.default = registry.Registry()

    class Bounded(WorkflowState):
        marks: list[Annotated[int, Field(le=5)]] = []

    @workflow(id="marks", state_schema=Bounded, state_key=lambda mark: "all")
    async def code(ctx: WorkflowContext, mark: int) -> int:
        ctx.state.marks.append(mark)
        return len(ctx.state.marks)

    async with by_hand(**world) as simulation:
        client = simulation.client
        assert await code(client, 1) == 1
        with pytest.raises(ExecutionFailedError, match="less than or equal to 5"):
            await code(client, 99)
        assert await code(client, 2) == 2
        assert await client.get_state(code, "all") == {"marks": [1, 2]}


async def test_a_failure_rolls_back_if_that_is_declared(world: World) -> None:
    cart = define(state_on_failure="rollback")
    async with by_hand(**world) as simulation:
        client = simulation.client
        await cart(client, order("a"))
        with pytest.raises(ExecutionFailedError):
            await cart(client, order("b", fail=True))
        assert await client.get_state(cart, "ann") == {"items": ["a"], "total": 1}
        assert await cart(client, order("c")) == ["a", "c"]


async def test_what_is_cancelled_lets_the_next_one_run(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        first = await cart.invoke(client, order("a", days=1))
        await until_shown(simulation, first.id, is_waiting)
        second = await cart.invoke(client, order("b"))
        third = await cart.invoke(client, order("c"))
        await second.cancel()
        await first.cancel()
        shown = await until_shown(simulation, third.id, is_ended)
        assert shown["result"] == ["a", "c"]
        assert (await client.get_execution(second.id))["status"] == "cancelled"


async def test_the_next_one_runs_in_the_process_that_is_left(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        first = await cart.invoke(simulation.client, order("a", days=1))
        await until_shown(simulation, first.id, is_waiting)
        second = await cart.invoke(simulation.client, order("b"))
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 100, step=10)
        assert (await simulation.client.get_execution(second.id))["status"] == "queued"
        await pass_time(simulation, 90_000, step=10_000)
        shown = await until_shown(simulation, second.id, is_ended)
        assert shown["result"] == ["a", "b"]


async def test_an_initial_state_is_for_a_key_without_state(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        given = Cart(items=["gift"])
        assert await cart(client, order("a"), initial_state=given) == ["gift", "a"]
        with pytest.raises(ConflictError, match=r"has state already \(version 1\)"):
            await cart(client, order("b"), initial_state=given)
        waiting = await cart.invoke(client, order("x", "bob", days=1))
        with pytest.raises(ConflictError, match="in use by another execution"):
            await cart(client, order("y", "bob"), initial_state=given)
        await waiting.cancel()
        found = await client.list_executions()
        assert len(found) == 2  # what was refused was not stored


async def test_people_set_list_and_remove_state(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        state = await client.set_state(cart, "ann", {"total": 5}, if_version=0)
        assert (state, state.version) == ({"items": [], "total": 5}, 1)
        with pytest.raises(ConflictError, match="has version 1, not 0"):
            await client.set_state(cart, "ann", Cart(), if_version=0)
        assert (await client.set_state("cart", "ann", Cart(total=6), 1)).version == 2
        assert await cart(client, order("a")) == ["a"]
        assert await client.get_state(cart, "ann") == {"items": ["a"], "total": 7}
        for key in ("b_1", "b_2", "b%", 7, UUID(int=1)):
            await client.set_state(cart, key, {})
        assert await client.list_state_keys(cart, prefix="b") == ["b%", "b_1", "b_2"]
        assert await client.list_state_keys(cart, limit=2) == [str(UUID(int=1)), "7"]
        assert await client.list_state_keys(cart, limit=2, after="7") == ["ann", "b%"]
        with pytest.raises(ConflictError, match="not 1"):
            await client.delete_state(cart, "ann", if_version=1)
        assert await client.delete_state(cart, "ann")
        assert not await client.delete_state(cart, "ann")
        assert await client.get_state(cart, "ann") is None


async def test_the_state_of_a_key_in_use_is_neither_set_nor_removed(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await cart.invoke(client, order("a", days=1))
        await until_shown(simulation, handle.id, is_waiting)
        with pytest.raises(ConflictError, match=f"held by execution {handle.id}"):
            await client.set_state(cart, "ann", Cart())
        with pytest.raises(ConflictError, match="held by execution"):
            await client.delete_state(cart, "ann")
        await client.patch_state(handle.id, {"total": 40})
        behind = await cart.invoke(client, order("b"))
        with pytest.raises(ConflictError, match="waits for others with the state key 'ann'"):
            await client.patch_state(behind.id, {"total": 1})
        await pass_time(simulation, 90_000, step=10_000)
        await until_shown(simulation, behind.id, is_ended)
        assert await client.get_state(cart, "ann") == {"items": ["a", "b"], "total": 42}


async def test_a_failed_one_is_retried_only_as_long_as_nobody_came_after_it(world: World) -> None:
    cart = define()
    fail = {"now": True}

    @workflow(id="shaky", state_schema=Cart, state_key=lambda _: "one")
    async def shaky(ctx: WorkflowContext) -> int:
        ctx.state.total += 1
        await ctx.step.uuid("counted")
        if fail["now"]:
            raise ValueError("no")
        return ctx.state.total

    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await shaky.invoke(client)
        await until_shown(simulation, handle.id, is_ended)
        fail["now"] = False
        await client.retry_execution(handle.id)
        shown = await until_shown(simulation, handle.id, is_ended)
        assert (shown["status"], shown["result"]) == ("completed", 1)
        failed = await cart.invoke(client, order("a", fail=True))
        await until_shown(simulation, failed.id, is_ended)
        await cart(client, order("b"))
        with pytest.raises(ConflictError, match="was changed since it failed"):
            await client.retry_execution(failed.id)


async def test_a_child_is_in_line_with_the_others_and_none_waits_for_itself(world: World) -> None:
    cart = define()

    @workflow(id="parent", state_schema=Cart, state_key=lambda key: key)
    async def parent(ctx: WorkflowContext, key: str) -> Any:
        ctx.state.total += 1
        first = await ctx.step.invoke_and_wait("one", cart, order("a", key))
        await ctx.step.invoke("other", cart, order("b", key))
        third = await ctx.step.invoke_and_wait("three", cart, order("c", key))
        with pytest.raises(StepExecutionError, match="both would wait"):
            await ctx.step.invoke_and_wait("self", parent, key)
        with pytest.raises(StepExecutionError, match="cannot give 'cart' an initial_state"):
            await ctx.step.invoke("given", cart, order("d", key), initial_state=Cart())
        return [first, third]

    @workflow(id="between")
    async def between(ctx: WorkflowContext, key: str) -> Any:
        return await ctx.step.invoke_and_wait("up", outer, key)

    @workflow(id="outer", state_schema=Cart, state_key=lambda key: key)
    async def outer(ctx: WorkflowContext, key: str) -> Any:
        return await ctx.step.invoke_and_wait("down", between, key)

    async with by_hand(**world) as simulation:
        client = simulation.client
        handle = await parent.invoke(client, "ann")
        shown = await until_shown(simulation, handle.id, is_ended)
        assert shown["result"] == [["a"], ["a", "b", "c"]]
        handle = await outer.invoke(client, "ann")
        shown = await until_shown(simulation, handle.id, is_ended)
        assert "both would wait" in shown["error"]


async def test_a_process_without_the_code_starts_in_line_as_well(world: World) -> None:
    cart = define()
    async with by_hand(takes_queue=True, **world) as simulation:
        first = await cart.invoke(simulation.client, order("a", days=1))
        await until_shown(simulation, first.id, is_waiting)
        elsewhere = {**world, "registry": registry.Registry()}
        async with by_hand(**elsewhere) as other:
            second = await other.client.invoke("cart", order("b"))
            third = await other.client.invoke("cart", order("x", "bob"))
            await until_shown(simulation, third.id, is_ended)
            # Whoever claims it first sees that it has to stand in line.
            await until_shown(simulation, second.id, lambda each: each["status"] == "queued")
            await pass_time(simulation, 90_000, step=10_000)
            shown = await until_shown(simulation, second.id, is_ended)
            assert shown["result"] == ["a", "b"]
            left = {"items": ["a", "b"], "total": 2}
            assert await other.client.get_state("cart", "ann") == left


async def test_who_was_started_first_begins_first_whoever_claims_it(world: World) -> None:
    define()
    known = registry.default
    async with by_hand(**{**world, "registry": registry.Registry()}) as other:
        store: Any = (await other.client.node()).engine.store
        now = other.clock.now() + 1_000
        await store.register_worker(worker("far", "cart", takes_queue=True))
        first = await other.client.invoke("cart", order("a"))
        other.clock.advance(0.001)
        second = await other.client.invoke("cart", order("b"))
        # It claims the first one, and does not come to look for its key.
        found = await store.claimable("far", ["cart"], True, now, 1)
        assert [claimed.execution.id for claimed in await store.claim("far", found, {}, now)] == [
            first.id
        ]
        async with by_hand(takes_queue=True, **{**world, "registry": known}) as simulation:
            await pass_time(simulation, 0.5)
            await store.stop_worker("far", now, crashed=True)
            shown = await until_shown(simulation, second.id, is_ended)
            assert shown["result"] == ["a", "b"]


async def test_the_state_of_a_key_is_migrated(world: World) -> None:
    cart = define()
    async with by_hand(**world) as simulation:
        await cart(simulation.client, order("a"))
    registry.default = registry.Registry()

    class Newer(WorkflowState, version=2):
        lines: list[str] = []

        @migrate(from_version=1)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            return {"lines": data["items"]}

    @workflow(id="cart", state_schema=Newer, state_key=lambda input: input["customer"])
    async def newer(ctx: WorkflowContext, input: Payload) -> list[str]:
        ctx.state.lines.append(input["item"])
        await ctx.step.uuid("added")
        return list(ctx.state.lines)

    async with by_hand(**world) as simulation:
        client = simulation.client
        assert await client.get_state(newer, "ann") == {"lines": ["a"]}
        assert await newer(client, order("b")) == ["a", "b"]
        assert await client.get_state(newer, "ann") == {"lines": ["a", "b"]}


@pytest.mark.parametrize("key", ["", "\0", "x" * 257, "é" * 129, True, None, 1.5, b"a", ["a"]])
async def test_a_key_that_is_none_is_refused_and_nothing_is_stored(key: Any) -> None:
    cart = define()
    async with by_hand() as simulation:
        client = simulation.client
        with pytest.raises(InvalidPayloadError, match="a state key"):
            await cart(client, order("a", key))
        with pytest.raises(UsageError, match="a state key"):
            await client.get_state(cart, key)
        with pytest.raises(InvalidPayloadError, match="state_key raised KeyError: 'customer'"):
            await cart(client, {"item": "a"})
        with pytest.raises(InvalidStateError):
            await client.set_state(cart, "ann", {"total": "many"})
        assert await client.list_executions() == []


async def test_a_workflow_without_a_key_has_no_state_by_key() -> None:
    @workflow(id="plain", state_schema=Cart)
    async def plain(ctx: WorkflowContext) -> None:
        pass

    async with by_hand() as simulation:
        client = simulation.client
        for which in (plain, "plain"):
            for asked in (
                client.get_state(which, "a"),
                client.set_state(which, "a", {}),
                client.delete_state(which, "a"),
                client.list_state_keys(which),
            ):
                with pytest.raises(UsageError, match="'plain' has no state by key"):
                    await asked
        assert await simulation.store.state_keys("plain", "", "", 10) == []


def test_options_that_do_not_fit_are_refused() -> None:
    async def func(ctx: WorkflowContext) -> None:
        pass

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"state_key": lambda _: "x"}, "needs a state_schema"),
        ({"state_key": "customer", "state_schema": Cart}, "function of the payload"),
        ({"state_on_failure": "rollback", "state_schema": Cart}, "give state_key as well"),
        ({"state_on_failure": "drop", "state_schema": Cart}, "'keep' or 'rollback'"),
    ]
    for options, text in wrong:
        with pytest.raises(WorkflowDefinitionError, match=text):
            workflow(id="wrong", **options)(func)
