"""Wrong calls and values: the right error, which names the thing; nothing is half stored."""

import threading
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    ExecutionFailedError,
    ExecutionNotFoundError,
    PolosClient,
    StateTooLargeError,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    get_workflow,
    workflow,
)
from polos.errors import (
    EncodeError,
    InvalidPayloadError,
    InvalidStateError,
    PolosError,
    StateSchemaError,
    UsageError,
    WorkflowDefinitionError,
    WorkflowNotRegisteredError,
)

LIMIT = 1_048_576


class Order(BaseModel):
    item: str
    count: int


class Big(WorkflowState):
    small: int = 0
    blob: str = ""
    other: str = ""


@workflow(id="errors.order")
async def order(ctx: WorkflowContext, input: Order) -> Any:
    return input.item


@workflow(id="errors.sized", state_schema=Big)
async def sized(ctx: WorkflowContext, where: str) -> list[str]:
    async def grow() -> str:
        ctx.state.small = 5
        if where == "body":
            ctx.state.blob = "x" * LIMIT
        return "grown"

    caught: list[str] = []
    ctx.state.small = 1
    await ctx.step.run("first", lambda: None)
    if where == "code":
        ctx.state.blob = "x" * LIMIT
    try:
        await ctx.step.run("second", grow)
    except StateTooLargeError as error:
        caught = [str(error.field), str(error.step_key), str(error)]
        ctx.state.blob = ""
    await ctx.step.run("third", lambda: None)
    if where == "end":
        ctx.state.blob = "x" * LIMIT
    return caught


async def test_an_unknown_execution(client: PolosClient) -> None:
    with pytest.raises(ExecutionNotFoundError, match=r"'nobody'.*database URL") as caught:
        await client.get_execution("nobody")
    assert isinstance(caught.value, LookupError)
    assert caught.value.execution_id == "nobody"


async def test_an_unregistered_workflow(client: PolosClient) -> None:
    with pytest.raises(WorkflowNotRegisteredError, match=r"'errors.nobody'.*import") as caught:
        await client.invoke("errors.nobody", {"a": 1})
    assert isinstance(caught.value, LookupError)
    assert await client.list_executions() == []


async def test_an_unregistered_child(client: PolosClient) -> None:
    @workflow(id="errors.childless")
    async def childless(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("child", "errors.nobody", {})
        except StepExecutionError as error:
            return str(error)
        return ""

    assert await childless(client) == "Workflow errors.nobody not found"


@pytest.mark.parametrize(
    ("payload", "place"),
    [
        ({"item": "x"}, "count"),
        ({"item": "x", "count": "many"}, "count"),
        ({"item": [], "count": 1}, "item"),
        ("text", "Order"),
        (None, "None was provided"),
    ],
)
async def test_a_payload_of_the_wrong_type(client: PolosClient, payload: Any, place: str) -> None:
    for start in (
        lambda: order(client, payload),
        lambda: order.invoke(client, payload),
        lambda: client.invoke("errors.order", payload),
    ):
        with pytest.raises(InvalidPayloadError, match=r"errors\.order") as caught:
            await start()
        assert place in str(caught.value)
        assert isinstance(caught.value, ValueError)
    assert await client.list_executions() == []


async def test_a_payload_that_cannot_be_encoded(client: PolosClient) -> None:
    @workflow(id="errors.any")
    async def anything(ctx: WorkflowContext, input: Any) -> None: ...

    with pytest.raises(EncodeError, match="lock") as caught:
        await anything(client, {"a": [1, threading.Lock()]})
    assert "a" in caught.value.path
    assert "1" in caught.value.path
    assert await client.list_executions() == []


async def test_a_childs_payload_that_does_not_fit(client: PolosClient) -> None:
    @workflow(id="errors.parent")
    async def parent(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("child", order, {"item": 1})
        except StepExecutionError as error:
            return str(error)
        return ""

    handle = await parent.invoke(client)
    assert "cannot start 'errors.order'" in await handle.result()
    assert len(await client.list_executions()) == 1


class Unhappy:
    """A class that nothing can encode."""


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {"b": Unhappy()}]}, ("a", "1", "b")),
        (Unhappy(), ()),
        ([threading.Lock()], ("0",)),
        ((x for x in [1]), ()),
        (lambda: 1, ()),
    ],
)
async def test_a_step_result_that_cannot_be_encoded(
    client: PolosClient, value: Any, path: tuple[str, ...]
) -> None:
    calls: list[int] = []

    def body() -> Any:
        calls.append(1)
        return value

    @workflow(id="errors.step_result")
    async def failing(ctx: WorkflowContext) -> list[Any]:
        try:
            await ctx.step.run("odd", body)
        except StepExecutionError as error:
            return [error.step_key, error.error_type, str(error)]
        return []

    handle = await failing.invoke(client)
    key, cause, text = await handle.result()
    assert (key, cause) == ("odd", "EncodeError")
    assert "odd" in text
    assert type(value).__name__ in text or path
    for part in path:
        assert part in text
    assert calls == [1], "to try again would change nothing"
    (step,) = await client.get_steps(handle.id)
    assert (step["status"], step["output"], step["attempts"]) == ("failed", None, 1)


async def test_a_workflow_result_that_cannot_be_encoded(client: PolosClient) -> None:
    @workflow(id="errors.result", state_schema=Big)
    async def failing(ctx: WorkflowContext) -> Any:
        ctx.state.small = 3
        return {"deep": [Unhappy()]}

    handle = await failing.invoke(client)
    with pytest.raises(ExecutionFailedError, match="Unhappy") as caught:
        await handle.result()
    assert "deep" in str(caught.value)
    shown = await handle.get()
    assert (shown["status"], shown["result"]) == ("failed", None)
    assert shown["state"]["small"] == 3


async def test_a_state_that_is_too_large_at_the_start(client: PolosClient) -> None:
    for given in ({"blob": "x" * LIMIT}, Big(blob="x" * LIMIT)):
        with pytest.raises(StateTooLargeError, match="blob") as caught:
            await sized(client, "start", initial_state=given)
        assert (caught.value.field, caught.value.limit) == ("blob", LIMIT)
        assert caught.value.size > LIMIT
        assert isinstance(caught.value, ValueError)
    assert await client.list_executions() == []


async def test_a_state_just_below_the_limit(client: PolosClient) -> None:
    overhead = len('{"small":0,"blob":"","other":""}')
    fits = {"blob": "x" * (LIMIT - overhead)}
    assert await sized(client, "nowhere", initial_state=fits) == []


@pytest.mark.parametrize("where", ["code", "body"])
async def test_a_state_that_grows_too_large_on_the_way(client: PolosClient, where: str) -> None:
    handle = await sized.invoke(client, where)
    field, key, text = await handle.result()
    assert field == "blob"
    assert key == ("second" if where == "body" else "None")  # refused before there was a step
    assert "1048576" in text.replace(",", "").replace("_", "")
    shown = await handle.get()
    assert shown["status"] == "completed"
    # What the failed body changed is dropped.
    assert shown["state"] == {"small": 1, "blob": "", "other": ""}
    steps = {s["step_key"]: s["status"] for s in await client.get_steps(handle.id)}
    assert steps["third"] == "completed"
    assert steps.get("second") == ("failed" if where == "body" else None)


async def test_a_state_that_is_too_large_at_the_end(client: PolosClient) -> None:
    handle = await sized.invoke(client, "end")
    with pytest.raises(ExecutionFailedError, match="blob"):
        await handle.result()
    shown = await handle.get()
    assert shown["status"] == "failed"
    assert shown["state"] == {"small": 5, "blob": "", "other": ""}


@pytest.mark.parametrize("given", [{"small": "x"}, {"blob": 3}, {"small": None}])
async def test_an_initial_state_that_does_not_fit(client: PolosClient, given: Any) -> None:
    with pytest.raises(InvalidStateError, match=next(iter(given))) as caught:
        await sized(client, "nowhere", initial_state=given)
    assert isinstance(caught.value, ValueError)
    assert await client.list_executions() == []


async def nothing(ctx: WorkflowContext) -> None: ...


class Opaque:
    """A class that JSON knows nothing of."""


class Locked(WorkflowState):
    model_config = {"arbitrary_types_allowed": True}
    lock: Opaque = Opaque()


def test_a_schema_whose_field_cannot_come_back() -> None:
    with pytest.raises(StateSchemaError, match="lock"):
        workflow(id="errors.locked", state_schema=Locked)(nothing)
    assert get_workflow("errors.locked") is None


def test_a_schema_with_a_field_of_any_model() -> None:
    class Anything(WorkflowState):
        models: list[BaseModel] = []

    with pytest.raises(StateSchemaError, match=r"models\[\]: BaseModel has no fields"):

        @workflow(id="errors.any_model", state_schema=Anything)
        async def any_model(ctx: WorkflowContext) -> None: ...


def test_a_schema_that_is_no_model() -> None:
    with pytest.raises(StateSchemaError, match="WorkflowState"):
        workflow(state_schema=dict)(nothing)  # pyright: ignore[reportArgumentType]


async def test_an_assignment_that_does_not_fit(client: PolosClient) -> None:
    @workflow(id="errors.assign", state_schema=Big)
    async def assign(ctx: WorkflowContext) -> str:
        try:
            ctx.state.small = "x"
        except ValueError as error:
            return type(error).__name__
        return ""

    assert await assign(client) == "ValidationError"


LONE = "\ud800"
NUL = "a\0b"


@pytest.mark.parametrize("name", ["session_id", "user_id", "idempotency_key", "concurrency_key"])
@pytest.mark.parametrize("value", [LONE, NUL, 5, object()])
async def test_a_label_that_is_no_text(client: PolosClient, name: str, value: Any) -> None:
    given = {name: value}
    for start in (
        order.invoke(client, Order(item="a", count=1), **given),
        client.invoke("errors.order", {"item": "a", "count": 1}, **given),
    ):
        with pytest.raises(UsageError, match=name):
            await start
    assert await client.list_executions() == []


@pytest.mark.parametrize("name", ["session_id", "user_id", "idempotency_key", "concurrency_key"])
async def test_a_label_has_a_length_that_every_index_takes(client: PolosClient, name: str) -> None:
    payload = Order(item="a", count=1)
    given: Any = {name: "x" * 2_001}
    with pytest.raises(UsageError, match=rf"{name} .* has 2,001 bytes; at most 2,000"):
        await order.invoke(client, payload, **given)
    assert await client.list_executions() == []
    given = {name: "é" * 1_000}
    handle = await order.invoke(client, payload, **given)
    assert (await client.get_execution(handle.id))[name] == "é" * 1_000


def test_a_workflow_id_has_a_length_that_every_index_takes() -> None:
    with pytest.raises(WorkflowDefinitionError, match="more than 500 bytes"):
        workflow(id="é" * 251)(nothing)


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e12, 0, "5"])
async def test_a_time_limit_that_makes_no_sense(client: PolosClient, seconds: Any) -> None:
    with pytest.raises(UsageError, match="run_timeout_seconds"):
        await client.invoke("errors.order", {"item": "a", "count": 1}, run_timeout_seconds=seconds)
    assert await client.list_executions() == []


@pytest.mark.parametrize("execution_id", [LONE, NUL, None, 5])
async def test_an_id_that_is_none(client: PolosClient, execution_id: Any) -> None:
    for call in (
        client.get_execution(execution_id),
        client.get_steps(execution_id),
        client.cancel_execution(execution_id),
        client.retry_execution(execution_id),
        client.get_handle(execution_id).result(),
    ):
        with pytest.raises(ExecutionNotFoundError):
            await call


@pytest.mark.parametrize("key", [LONE, NUL])
async def test_a_step_key_that_not_every_database_takes(client: PolosClient, key: str) -> None:
    @workflow(id="errors.lone_key")
    async def lone_key(ctx: WorkflowContext) -> None:
        await ctx.step.run(key, lambda: None)

    with pytest.raises(ExecutionFailedError, match="a NUL or a lone surrogate"):
        await lone_key(client)


@pytest.mark.parametrize("text", [LONE, NUL])
async def test_what_is_looked_for_and_can_be_nowhere(client: PolosClient, text: str) -> None:
    for call in (
        client.list_executions(workflow_id=text),
        client.list_executions(session_id=text),
        client.list_suspensions(workflow_id=text),
        client.get_state(text, "key"),
        client.list_state_keys("errors.other", prefix=text),
    ):
        with pytest.raises(UsageError, match="a NUL or a lone surrogate"):
            await call


@pytest.mark.parametrize("what", [5, None, len])
@pytest.mark.parametrize("how", ["invoke", "invoke_and_wait"])
async def test_a_child_that_is_no_workflow(client: PolosClient, how: str, what: Any) -> None:
    @workflow(id="errors.no_child")
    async def parent(ctx: WorkflowContext) -> None:
        with pytest.raises(UsageError, match=r"'c' starts .*expected a workflow, or the id of one"):
            await getattr(ctx.step, how)("c", what)

    await parent(client)


@pytest.mark.parametrize("what", [5, "errors.order", ["errors.order"], [{"id": "errors.order"}]])
async def test_a_batch_of_something_else(client: PolosClient, what: Any) -> None:
    @workflow(id="errors.no_batch")
    async def parent(ctx: WorkflowContext) -> None:
        for call in (ctx.step.batch_invoke, ctx.step.batch_invoke_and_wait):
            with pytest.raises(UsageError, match="BatchWorkflowInput"):
                await call("b", what)

    await parent(client)
    with pytest.raises(UsageError, match="BatchWorkflowInput"):
        await client.batch_invoke(what)


async def test_everything_raised_is_a_polos_error(client: PolosClient) -> None:
    with pytest.raises(PolosError):
        await client.invoke("errors.nobody")
    with pytest.raises(PolosError):
        await order(client, {})
