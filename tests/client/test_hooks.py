"""Hooks: what they see, what they change, how they fail; recorded once each."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from polos import (
    ExecutionFailedError,
    HookAction,
    HookContext,
    HookResult,
    WorkflowContext,
    hook,
    workflow,
)
from polos.middleware import hook as middleware
from polos.testing import Simulation


class Order(BaseModel):
    item: str
    count: int = 1


@dataclasses.dataclass
class Box:
    side: int
    name: str = "box"


class Struct(msgspec.Struct):
    side: int
    name: str = "struct"


def test_the_reference_module_path_has_the_same_names() -> None:
    assert (middleware.HookResult, middleware.hook) == (HookResult, hook)


def test_an_action_is_its_text() -> None:
    assert HookResult.fail("no").action == "fail" == HookAction.FAIL
    assert HookResult(action=HookAction("continue")).action is HookAction.CONTINUE
    assert HookResult.continue_with().to_dict() == {
        "action": "continue",
        "modified_payload": None,
        "modified_output": None,
        "error_message": None,
    }


def test_contexts_and_results_come_from_dicts() -> None:
    told = HookContext.from_dict({"workflow_id": "w", "current_payload": {"a": 1}})
    assert told.to_dict()["current_payload"] == {"a": 1}
    assert HookContext.from_dict(told) is told
    assert HookResult.from_dict({"action": "fail"}).action is HookAction.FAIL
    with pytest.raises(TypeError, match="Cannot create HookContext from int"):
        HookContext.from_dict(1)
    with pytest.raises(TypeError, match="Cannot create HookResult from this dict"):
        HookResult.from_dict({"action": "explode"})


def test_the_decorator_wants_two_parameters_and_changes_nothing() -> None:
    def fine(ctx: Any, hook_context: Any) -> None: ...

    assert hook(fine) is fine
    assert hook()(fine) is fine
    with pytest.raises(TypeError, match="must have exactly 2 parameters"):
        hook(lambda ctx: None)
    with pytest.raises(TypeError, match="marks a function, not 5"):
        hook(5)  # pyright: ignore[reportCallIssue, reportArgumentType]


async def test_a_modified_payload_reaches_the_next_hook_and_the_code_typed(
    simulation: Simulation,
) -> None:
    seen: list[Any] = []

    @hook
    def double(ctx: WorkflowContext, told: HookContext) -> HookResult:
        return HookResult.continue_with(modified_payload={"count": told.current_payload.count * 2})

    @hook
    async def look(ctx: WorkflowContext, told: HookContext) -> HookResult:
        seen.append(told.current_payload)
        return HookResult.continue_with()

    @workflow(id="hooks.typed", on_start=[double, look])
    async def typed(ctx: WorkflowContext, order: Order) -> Order:
        return order

    assert await typed(simulation.client, Order(item="tea", count=3)) == Order(item="tea", count=6)
    assert seen == [Order(item="tea", count=6)]


@pytest.mark.parametrize(
    ("given", "modification", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        (Box(1), {"side": 2}, Box(2)),
        (Struct(1), {"side": 2}, Struct(2)),
        (Order(item="x"), Order(item="y"), Order(item="y")),
        ("text", "other", "other"),
        ([1], [2, 3], [2, 3]),
        (5, 0, 0),
        (None, {"a": 1}, {"a": 1}),
    ],
)
async def test_an_output_of_any_type_is_modified(
    simulation: Simulation, given: Any, modification: Any, expected: Any
) -> None:
    def change(ctx: WorkflowContext, told: HookContext) -> HookResult:
        return HookResult.continue_with(modified_output=modification)

    @workflow(id="hooks.output", on_end=change)
    async def output(ctx: WorkflowContext) -> Any:
        return given

    assert await output(simulation.client) == expected


@pytest.mark.parametrize("value", ["text", [1], 5, None, "", 0])
async def test_an_output_that_no_hook_modifies_stays(simulation: Simulation, value: Any) -> None:
    def look(ctx: WorkflowContext, told: HookContext) -> HookResult:
        assert told.current_output == value
        return HookResult.continue_with()

    @workflow(id="hooks.kept", on_end=look)
    async def kept(ctx: WorkflowContext) -> Any:
        return value

    assert await kept(simulation.client) == value


@pytest.mark.parametrize("where", ["on_start", "on_end"])
async def test_fail_fails_the_execution_with_the_message(
    simulation: Simulation, where: str
) -> None:
    calls: list[str] = []

    @hook
    def refuse(ctx: WorkflowContext, told: HookContext) -> HookResult:
        calls.append("hook")
        return HookResult.fail("Empty prompt not allowed")

    hooks: dict[str, Any] = {where: refuse}

    @workflow(id="hooks.refused", **hooks)
    async def refused(ctx: WorkflowContext) -> None:
        calls.append("code")

    handle = await refused.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError) as error:
        await handle.result()
    assert str(error.value) == "Workflow execution failed: Empty prompt not allowed"
    assert calls == (["hook"] if where == "on_start" else ["code", "hook"])
    step = (await simulation.client.get_steps(handle.id))[-1]
    assert (step["step_key"], step["status"]) == (f"{where}.refuse.0", "failed")


async def test_a_retry_of_the_execution_asks_the_hook_that_failed_it_again(
    simulation: Simulation,
) -> None:
    doubts = [True]

    def doubtful(ctx: WorkflowContext, told: HookContext) -> HookResult | None:
        return HookResult.fail("not today") if doubts.pop() else None

    @workflow(id="hooks.again", on_start=doubtful)
    async def again(ctx: WorkflowContext) -> str:
        return "done"

    handle = await again.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError, match="not today"):
        await handle.result()
    doubts.append(False)
    await simulation.client.retry_execution(handle.id)
    assert await handle.result() == "done"


async def test_a_hook_that_returns_something_else_fails_the_execution(
    simulation: Simulation,
) -> None:
    calls: list[str] = []

    def odd() -> str:
        calls.append("hook")
        return "fine"

    @workflow(id="hooks.odd", on_start=odd)
    async def code(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ExecutionFailedError, match=r"hook 'odd' returned str; return HookResult"):
        await code(simulation.client)
    assert calls == ["hook"]


async def test_a_payload_that_does_not_fit_any_more_fails_the_execution(
    simulation: Simulation,
) -> None:
    def spoil(ctx: WorkflowContext, told: HookContext) -> HookResult:
        return HookResult.continue_with(modified_payload={"count": "many"})

    @workflow(id="hooks.spoilt", on_start=spoil)
    async def spoilt(ctx: WorkflowContext, order: Order) -> None: ...

    with pytest.raises(ExecutionFailedError, match="does not fit Order"):
        await spoilt(simulation.client, Order(item="tea"))


async def test_what_a_hook_changes_in_place_changes_nothing(simulation: Simulation) -> None:
    def meddle(ctx: WorkflowContext, told: HookContext) -> None:
        told.current_payload["a"] = 2

    @workflow(id="hooks.meddling", on_start=meddle)
    async def meddling(ctx: WorkflowContext, payload: dict[str, int]) -> dict[str, int]:
        return payload

    assert await meddling(simulation.client, {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("name", ["partial", "lambda", "object"])
async def test_any_callable_is_a_hook(simulation: Simulation, name: str) -> None:
    async def change(by: int, ctx: WorkflowContext, told: HookContext) -> HookResult:
        return HookResult.continue_with(modified_payload=told.current_payload + by)

    class Adder:
        def __call__(self, ctx: WorkflowContext, told: HookContext) -> HookResult:
            return HookResult.continue_with(modified_payload=told.current_payload + 1)

    hooks: dict[str, Any] = {
        "partial": functools.partial(change, 1),
        "lambda": lambda ctx, told: change(1, ctx, told),
        "object": Adder(),
    }

    @workflow(id="hooks.any", on_start=hooks[name])
    async def code(ctx: WorkflowContext, number: int) -> int:
        return number

    assert await code(simulation.client, 1) == 2


async def test_hooks_work_around_a_plain_function(simulation: Simulation) -> None:
    def more(ctx: WorkflowContext, told: HookContext) -> HookResult:
        return HookResult.continue_with(modified_payload=told.current_payload + 1)

    def most(ctx: WorkflowContext, told: HookContext) -> HookResult:
        return HookResult.continue_with(modified_output=told.current_output * 10)

    @workflow(id="hooks.plain", on_start=more, on_end=most)
    def plain(ctx: WorkflowContext, number: int) -> int:
        return number

    assert await plain(simulation.client, 1) == 20
