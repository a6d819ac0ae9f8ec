# ruff: noqa: ASYNC110 - what is in a database can only be polled
"""Handles and reads: one execution from outside, lists, steps."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    ConflictError,
    ExecutionCancelledError,
    ExecutionFailedError,
    ExecutionHandle,
    ExecutionNotFoundError,
    PolosClient,
    StepExecutionError,
    WorkflowContext,
    WorkflowState,
    WorkflowTimeoutError,
    workflow,
)
from polos.client import views
from polos.errors import UsageError
from polos.testing import Simulation

NOBODY = "00000000-0000-7000-8000-000000000000"


class Point(BaseModel):
    x: int


class Seen(WorkflowState):
    n: int = 0


@workflow(id="handles.stepping", state_schema=Seen)
async def stepping(ctx: WorkflowContext, fail: bool = False) -> Point:
    await ctx.step.run("one", lambda: 1)
    ctx.state.n = 1
    try:
        await ctx.step.run("broken", _fail, max_retries=0)
    except StepExecutionError:
        await ctx.step.uuid("id")
    await ctx.step.wait_for("pause", minutes=1)
    if fail:
        await ctx.step.run("last", _fail, max_retries=0)
    return Point(x=3)


@workflow(id="handles.sleeping", state_schema=Seen)
async def sleeping(ctx: WorkflowContext, days: float) -> str:
    ctx.state.n = 7
    await ctx.step.wait_for("sleep", days=days)
    return "woke"


@workflow(id="handles.parent")
async def parent(ctx: WorkflowContext) -> str:
    child = await ctx.step.invoke("child", sleeping, 1)
    await ctx.step.wait_for("a little", seconds=1)
    return child.id


def _fail() -> None:
    raise OSError("no such luck")


@workflow(id="handles.quick")
async def quick(ctx: WorkflowContext) -> str:
    return await ctx.step.run("one", lambda: "done")


@pytest.mark.parametrize("read", ["get_execution", "list_executions", "list_suspensions", "handle"])
async def test_who_polls_without_a_pause_lets_executions_run(
    client: PolosClient, read: str
) -> None:
    handle = await quick.invoke(client)
    reads: dict[str, Callable[[], Awaitable[Any]]] = {
        "get_execution": lambda: client.get_execution(handle.id),
        "list_executions": client.list_executions,
        "list_suspensions": client.list_suspensions,
        "handle": handle.get,
    }
    result = asyncio.create_task(handle.result())
    for _ in range(20_000):
        if result.done():
            break
        await reads[read]()
    assert result.done()
    assert await result == "done"


async def test_the_result_has_its_type_and_get_shows_it(simulation: Simulation) -> None:
    handle = await stepping.invoke(simulation.client)
    assert await handle.result() == Point(x=3)
    assert await handle.result() == Point(x=3)
    shown = await handle.get()
    assert shown["result"] == Point(x=3)
    assert await handle.get(simulation.client) == shown
    plain = await simulation.client.get_execution(handle.id)
    assert plain["result"] == {"x": 3}


async def test_a_failure_is_raised_with_its_message(simulation: Simulation) -> None:
    handle = await stepping.invoke(simulation.client, True)
    text = "Workflow execution failed: Step execution failed after 0 retries: no such luck"
    for _ in range(2):
        with pytest.raises(ExecutionFailedError) as caught:
            await handle.result()
        assert str(caught.value) == text
        assert caught.value.execution_id == handle.id
        assert isinstance(caught.value, RuntimeError)
    shown = await handle.get()
    assert shown["status"] == "failed"
    assert shown["error"] == "Step execution failed after 0 retries: no such luck"
    assert shown["result"] is None


async def test_a_time_limit_of_the_execution_ends_it(simulation: Simulation) -> None:
    handle = await sleeping.invoke(simulation.client, 1, run_timeout_seconds=60)
    with pytest.raises(WorkflowTimeoutError, match="60"):
        await handle.result()
    shown = await handle.get()
    assert (shown["status"], shown["run_timeout_seconds"]) == ("failed", 60)


async def test_cancelling(simulation: Simulation) -> None:
    handle = await sleeping.invoke(simulation.client, 1000)
    assert await handle.cancel(simulation.client)
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    shown = await handle.get()
    assert shown["status"] == "cancelled"
    assert shown["cancel_requested_at"] is not None
    assert shown["cancelled_at"] == shown["completed_at"]
    assert not await handle.cancel()
    assert not await simulation.client.cancel_execution(handle.id)


async def test_a_handle_from_an_id_knows_only_that(simulation: Simulation) -> None:
    started = await stepping.invoke(simulation.client)
    handle = simulation.client.get_handle(started.id)
    assert handle == started
    assert hash(handle) == hash(started)
    assert handle.workflow_id is None
    assert await handle.result() == Point(x=3)
    assert await handle.state() == {"n": 1}


async def test_an_unknown_id_raises_at_first_use(client: PolosClient) -> None:
    handle = client.get_handle(NOBODY)
    for call in (
        handle.result,
        handle.get,
        handle.state,
        handle.cancel,
        lambda: handle.result(timeout=5),
        lambda: client.get_execution(NOBODY),
        lambda: client.get_steps(NOBODY),
        lambda: client.cancel_execution(NOBODY),
        lambda: client.retry_execution(NOBODY),
    ):
        with pytest.raises(ExecutionNotFoundError, match=NOBODY):
            await call()


async def test_to_dict_has_the_references_keys(simulation: Simulation) -> None:
    handle = await stepping.invoke(simulation.client, session_id="s", user_id="u")
    assert handle.to_dict() == {
        "id": handle.id,
        "workflow_id": "handles.stepping",
        "created_at": handle.created_at,
        "parent_execution_id": None,
        "root_workflow_id": "handles.stepping",
        "root_execution_id": handle.id,
        "session_id": "s",
        "user_id": "u",
        "step_key": None,
    }
    assert handle.id in repr(handle)
    await handle.result()


async def test_get_execution_has_the_references_keys_and_more(simulation: Simulation) -> None:
    handle = await sleeping.invoke(simulation.client, 1, session_id="s", idempotency_key="k")
    await handle.result()
    shown = await simulation.client.get_execution(handle.id)
    assert set(shown) >= {
        "id", "workflow_id", "status", "payload", "result", "error", "created_at", "started_at",
        "completed_at", "deployment_id", "assigned_to_worker", "parent_execution_id",
        "root_execution_id", "root_workflow_id", "retry_count", "step_key", "queue_name",
        "concurrency_key", "batch_id", "session_id", "user_id", "output_schema_name",
        "cancelled_at", "run_timeout_seconds", "state", "state_version", "attempt",
        "cancel_requested_at",
    }  # fmt: skip
    assert shown["status"] == "completed"
    assert type(shown["status"]) is str
    assert (shown["payload"], shown["result"], shown["error"]) == (1, "woke", None)
    assert shown["state"] == {"n": 7}
    assert shown["state_version"] >= 1
    assert shown["attempt"] >= 1
    assert (shown["session_id"], shown["idempotency_key"]) == ("s", "k")
    assert shown["created_at"] <= shown["started_at"] <= shown["completed_at"]
    assert shown["created_at"].endswith("+00:00")


async def test_lists_have_the_keys_of_get_execution_newest_first(simulation: Simulation) -> None:
    client = simulation.client
    handles: list[ExecutionHandle] = []
    for _ in range(7):
        handles.append(await stepping.invoke(client))
        await handles[-1].result()
    newest = [handle.id for handle in reversed(handles)]
    listed = await client.list_executions()
    assert [each["id"] for each in listed] == newest
    assert listed[0] == await client.get_execution(newest[0])
    seen: list[str] = []
    before: str | None = None
    while page := await client.list_executions(limit=3, before=before):
        seen += [each["id"] for each in page]
        before = seen[-1]
    assert seen == newest


async def test_filters_of_lists(simulation: Simulation) -> None:
    client = simulation.client
    one = await stepping.invoke(client, session_id="s")
    simulation.clock.advance(1)
    two = await stepping.invoke(client, True)
    top = await parent.invoke(client)
    child_id = await top.result()
    await asyncio.gather(one.result(), two.result(), return_exceptions=True)
    await client.get_handle(child_id).result()

    async def ids(**filters: Any) -> list[str]:
        return [each["id"] for each in await client.list_executions(**filters)]

    assert await ids(workflow_id="handles.stepping") == [two.id, one.id]
    assert await ids(status="failed") == [two.id]
    assert await ids(session_id="s") == [one.id]
    assert await ids(parent_execution_id=top.id) == [child_id]
    assert set(await ids(root_execution_id=top.id)) == {child_id, top.id}
    assert await ids(workflow_id="handles.stepping", status="completed", limit=1) == [one.id]
    assert await ids(status="waiting") == []


@pytest.mark.parametrize(
    "given",
    [
        *({"status": "done"}, {"limit": 0}, {"limit": -1}, {"limit": True}),
        *({"before": "nope"}, {"before": 5}, {"before": "0" * 36}),
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(
    client: PolosClient, given: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        await client.list_executions(**given)


async def test_numbers_beyond_what_stores_count_are_as_many_as_they_can(
    simulation: Simulation,
) -> None:
    client = simulation.client
    handle = await stepping.invoke(client)
    await handle.result()
    assert [each["id"] for each in await client.list_executions(limit=10**30)] == [handle.id]
    gone = "ffffffff-ffff-7fff-bfff-ffffffffffff"  # retention may remove what a page ended with
    assert [each["id"] for each in await client.list_executions(before=gone)] == [handle.id]
    assert await client.list_suspensions(limit=10**30) == []
    assert await client.state_history(handle.id, after=10**30) == []


async def test_steps_in_commit_order_with_what_became_of_them(simulation: Simulation) -> None:
    handle = await stepping.invoke(simulation.client)
    await handle.result()
    steps = await simulation.client.get_steps(handle.id)
    assert [(s["step_key"], s["kind"], s["status"]) for s in steps] == [
        ("one", "run", "completed"),
        ("broken", "run", "failed"),
        ("id", "uuid", "completed"),
        ("pause", "wait_for", "completed"),
    ]
    assert set(steps[0]) >= {
        "step_key", "kind", "status", "attempts", "output", "error", "started_at", "completed_at",
    }  # fmt: skip
    assert (steps[0]["output"], steps[0]["error"], steps[0]["attempts"]) == (1, None, 1)
    assert "no such luck" in steps[1]["error"]
    assert steps[1]["output"] is None
    assert steps[0]["started_at"] <= steps[0]["completed_at"]


async def test_open_steps_are_running_or_waiting(client: PolosClient) -> None:
    release = asyncio.Event()

    @workflow(id="handles.open")
    async def both(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.run("body", release.wait))
            group.create_task(ctx.step.wait_for("nap", seconds=0.3))

    handle = await both.invoke(client)
    async with asyncio.timeout(100):
        while len(steps := await client.get_steps(handle.id)) < 2:
            await asyncio.sleep(0.02)
    assert {s["step_key"]: s["status"] for s in steps} == {"body": "running", "nap": "waiting"}
    assert steps[0]["completed_at"] is None
    release.set()
    await handle.result()


async def test_the_state_is_live(client: PolosClient) -> None:
    handle = await sleeping.invoke(client, 1)
    async with asyncio.timeout(100):
        while (await handle.get())["status"] != "waiting":
            await asyncio.sleep(0.02)
    assert await handle.state() == {"n": 7}
    shown = await handle.get()
    assert shown["wake_at"] is not None
    assert shown["completed_at"] is None
    await handle.cancel()


async def test_a_failed_execution_goes_on_from_its_failed_step(simulation: Simulation) -> None:
    broken = True
    ran: list[str] = []

    def first() -> str:
        ran.append("first")
        return "first"

    def second() -> str:
        ran.append("second")
        if broken:
            raise OSError("broken")
        return "second"

    @workflow(id="handles.mending")
    async def mending(ctx: WorkflowContext) -> list[str]:
        one = await ctx.step.run("first", first)
        return [one, await ctx.step.run("second", second, max_retries=0)]

    client = simulation.client
    handle = await mending.invoke(client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    broken = False
    again = await client.retry_execution(handle.id)
    assert again == handle
    assert await again.result() == ["first", "second"]
    assert ran == ["first", "second", "second"]
    with pytest.raises(ConflictError, match="completed"):
        await client.retry_execution(handle.id)


@pytest.mark.parametrize("how", ["group", "nested", "from", "within"])
async def test_it_goes_on_from_all_the_failed_steps_behind_its_error(
    simulation: Simulation, how: str
) -> None:
    broken = True
    ran: list[str] = []

    def step(ctx: WorkflowContext, key: str) -> Any:
        async def body() -> str:
            ran.append(key)
            if broken and key != "first":
                raise OSError(f"{key} is broken")
            return key

        return ctx.step.run(key, body, max_retries=0)

    @workflow(id="handles.groups")
    async def groups(ctx: WorkflowContext) -> str:
        first = await step(ctx, "first")
        try:
            if how == "group":
                both: list[Any] = await asyncio.gather(
                    *(step(ctx, key) for key in "ab"), return_exceptions=True
                )
                if not isinstance(both[0], str):
                    raise ExceptionGroup("both", both)
            elif how == "nested":
                async with asyncio.TaskGroup() as group:
                    for key in "ab":
                        group.create_task(step(ctx, key))
            else:
                await step(ctx, "a")
        except ExceptionGroup as failed:
            if how == "nested":
                raise RuntimeError("in the end") from failed
            raise
        except StepExecutionError as error:
            if how == "from":
                raise RuntimeError("no way") from error
            raise KeyError("another")  # noqa: B904 - as people write it
        return first

    handle = await groups.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError) as caught:
        await handle.result()
    if how == "group":
        assert "a is broken" in str(caught.value)
        assert "b is broken" in str(caught.value)
    broken = False
    assert await (await simulation.client.retry_execution(handle.id)).result() == "first"
    assert ran.count("first") == 1


async def test_without_a_schema_there_is_no_state(simulation: Simulation) -> None:
    handle = await parent.invoke(simulation.client)
    await handle.result()
    assert await handle.state() is None
    shown = await handle.get()
    assert shown["state"] is shown["state_version"] is None


def test_moments_are_exact_up_to_the_last() -> None:
    last = datetime.max.replace(tzinfo=UTC)
    micros = (last - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert views.moment(micros) == last.isoformat()
