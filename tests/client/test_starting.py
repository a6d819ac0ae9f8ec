"""All ways of starting a workflow: what they accept, return and store."""

import asyncio
import concurrent.futures
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    BatchWorkflowInput,
    ExecutionFailedError,
    ExecutionHandle,
    PolosClient,
    WorkflowContext,
    WorkflowState,
    WorkflowTimeoutError,
    batch_invoke,
    workflow,
)
from polos.errors import (
    InvalidPayloadError,
    InvalidStateError,
    OutsideWorkflowError,
    UsageError,
)


class Order(BaseModel):
    item: str
    count: int = 1


class Counting(WorkflowState):
    n: int = 0
    names: list[str] = []


@dataclass
class Gates:
    """Events by name, for workflows that are to be caught in the middle."""

    events: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])

    def __getitem__(self, name: str) -> asyncio.Event:
        return self.events.setdefault(name, asyncio.Event())


gates = Gates()


@pytest.fixture(autouse=True)
def closed_gates() -> None:
    gates.events.clear()


@workflow(id="starting.order")
async def order(ctx: WorkflowContext, input: Order) -> str:
    assert isinstance(input, Order)
    return f"{input.count} × {input.item}"


@workflow(id="starting.plain")
def plain(ctx: WorkflowContext, input: Order) -> str:
    return f"plain {input.item}"


@workflow(id="starting.nothing")
async def nothing(ctx: WorkflowContext) -> None:
    return None


@workflow(id="starting.counting", state_schema=Counting)
async def counting(ctx: WorkflowContext, by: int = 1) -> int:
    ctx.state.n += by
    ctx.state.names.append("run")
    return ctx.state.n


@workflow(id="starting.gated")
async def gated(ctx: WorkflowContext, name: str) -> str:
    await ctx.step.run("pass", gates[name].wait)
    return name


@workflow(id="starting.identity")
async def identity(ctx: WorkflowContext) -> dict[str, Any]:
    return {"id": ctx.execution_id, "session": ctx.session_id, "user": ctx.user_id}


@workflow(id="starting.nested")
async def nested(ctx: WorkflowContext, how: str) -> None:
    client = PolosClient()  # never opened
    if how == "run":
        await order.run(client, Order(item="x"))
    elif how == "call":
        await order(client, Order(item="x"))
    elif how == "invoke":
        await order.invoke(client, Order(item="x"))
    elif how == "run_sync":
        order.run_sync(client, Order(item="x"))
    else:
        await batch_invoke(client, [])


async def test_run_and_call_wait_for_the_result(client: PolosClient) -> None:
    assert await order.run(client, Order(item="a", count=2)) == "2 × a"
    assert await order(client, Order(item="a")) == "1 × a"
    assert await plain(client, Order(item="b")) == "plain b"
    assert await nothing(client) is None


async def test_a_payload_may_be_a_dict_that_fits(client: PolosClient) -> None:
    assert await order(client, {"item": "a", "count": "3"}) == "3 × a"


async def test_the_callers_payload_is_not_shared(client: PolosClient) -> None:
    given = Order(item="a")
    handle = await order.invoke(client, given)
    given.item = "changed"
    assert await handle.result() == "1 × a"


async def test_invoke_returns_a_handle_at_once(client: PolosClient) -> None:
    handle = await gated.invoke(client, "g", session_id="s", user_id="u")
    assert isinstance(handle, ExecutionHandle)
    assert (handle.workflow_id, handle.session_id, handle.user_id) == ("starting.gated", "s", "u")
    assert handle.root_execution_id == handle.id
    assert handle.root_workflow_id == "starting.gated"
    assert handle.created_at is not None
    assert (await handle.get())["status"] in {"queued", "running"}
    gates["g"].set()
    assert await handle.result() == "g"


async def test_session_and_user_reach_the_code(client: PolosClient) -> None:
    handle = await identity.invoke(client, session_id="s", user_id="u")
    assert await handle.result() == {"id": handle.id, "session": "s", "user": "u"}


async def test_invoke_by_id_or_by_workflow(client: PolosClient) -> None:
    handle = await client.invoke("starting.order", {"item": "a"})
    assert await handle.result() == "1 × a"
    handle = await client.invoke(order, Order(item="b"), session_id="s")
    assert (await handle.result(), handle.session_id) == ("1 × b", "s")
    state = Counting(n=5)
    handle = await client.invoke("starting.counting", 2, initial_state=state)
    assert await handle.result() == 7


async def test_batch_invoke_keeps_the_order(client: PolosClient) -> None:
    inputs = [
        BatchWorkflowInput(id="starting.order", payload=Order(item=str(n))) for n in range(20)
    ]
    inputs.append(BatchWorkflowInput(id="starting.counting", initial_state={"n": 3}))
    for handles in (
        await client.batch_invoke(inputs, session_id="s"),
        await batch_invoke(client, inputs, session_id="s"),
    ):
        results = [await handle.result() for handle in handles]
        assert results == [f"1 × {n}" for n in range(20)] + [4]
        assert {handle.session_id for handle in handles} == {"s"}
    assert await client.batch_invoke([]) == []


async def test_a_batch_is_checked_before_the_first_is_stored(client: PolosClient) -> None:
    good = BatchWorkflowInput(id="starting.order", payload=Order(item="a"))
    with pytest.raises(InvalidPayloadError, match=r"starting\.order"):
        await client.batch_invoke([good, BatchWorkflowInput(id="starting.order", payload={})])
    with pytest.raises(LookupError, match="nobodys"):
        await client.batch_invoke([good, BatchWorkflowInput(id="nobodys")])
    assert await client.list_executions() == []


async def test_the_same_idempotency_key_is_the_same_execution(client: PolosClient) -> None:
    first = await order.invoke(client, Order(item="a"), idempotency_key="k")
    again = await order.invoke(client, Order(item="b"), idempotency_key="k")
    assert first == again
    assert await first.result() == await again.result() == "1 × a"
    assert await order(client, Order(item="c"), idempotency_key="k") == "1 × a"
    by_id = await client.invoke("starting.order", {"item": "d"}, idempotency_key="k")
    assert by_id.id == first.id
    assert again.workflow_id == "starting.order"
    assert len(await client.list_executions()) == 1


async def test_starts_at_once_with_one_key_are_one_execution(client: PolosClient) -> None:
    handles = await asyncio.gather(
        *(counting.invoke(client, n, idempotency_key="k") for n in range(50))
    )
    assert len({handle.id for handle in handles}) == 1
    results = await asyncio.gather(*(handle.result() for handle in handles))
    assert len(set(results)) == 1
    assert len(await client.list_executions()) == 1


@pytest.mark.parametrize("given", [Counting(n=10), {"n": 10}, {"n": "10"}])
async def test_initial_state_is_a_model_or_a_dict(client: PolosClient, given: Any) -> None:
    handle = await counting.invoke(client, 1, initial_state=given)
    assert await handle.result() == 11
    assert await handle.state() == {"n": 11, "names": ["run"]}


async def test_defaults_fill_the_rest_and_are_never_shared(client: PolosClient) -> None:
    assert await counting(client) == 1
    handle = await counting.invoke(client)
    assert await handle.result() == 1
    assert await handle.state() == {"n": 1, "names": ["run"]}
    mine = Counting(n=1, names=["mine"])
    await counting(client, initial_state=mine)
    assert mine == Counting(n=1, names=["mine"])


@pytest.mark.parametrize("given", [{"n": "x"}, {"n": None}, Order(item="x"), {"names": "x"}])
async def test_an_initial_state_that_does_not_fit_stores_nothing(
    client: PolosClient, given: Any
) -> None:
    with pytest.raises(InvalidStateError):
        await counting(client, initial_state=given)
    with pytest.raises(InvalidStateError):
        await client.invoke("starting.counting", initial_state=given)
    assert await client.list_executions() == []


async def test_a_workflow_without_state_takes_none(client: PolosClient) -> None:
    with pytest.raises(InvalidStateError, match="state_schema"):
        await order(client, Order(item="x"), initial_state={"n": 1})
    assert await client.list_executions() == []


async def test_the_callers_time_limit_leaves_the_execution_running(client: PolosClient) -> None:
    handle = await gated.invoke(client, "g")
    with pytest.raises(WorkflowTimeoutError, match=r"0\.05 seconds") as caught:
        await handle.result(timeout=0.05)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.execution_id == handle.id
    with pytest.raises(WorkflowTimeoutError):
        await gated(client, "h", timeout=0.01)
    gates["g"].set()
    gates["h"].set()
    assert await handle.result(timeout=100) == "g"
    (other,) = [e for e in await client.list_executions() if e["id"] != handle.id]
    assert await client.get_handle(other["id"]).result() == "h"


async def test_a_caller_that_is_cancelled_leaves_the_execution_running(
    client: PolosClient,
) -> None:
    handle = await gated.invoke(client, "g")
    waiting = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gates["g"].set()
    assert await handle.result() == "g"


@pytest.mark.parametrize("how", ["run", "call", "invoke", "run_sync", "batch"])
async def test_inside_a_workflow_there_is_ctx_step(client: PolosClient, how: str) -> None:
    with pytest.raises(ExecutionFailedError, match=r"ctx\.step"):
        await nested(client, how)
    assert issubclass(OutsideWorkflowError, RuntimeError)


async def test_run_sync_does_not_block_a_loop(client: PolosClient) -> None:
    with pytest.raises(UsageError, match="await"):
        order.run_sync(client, Order(item="x"))


def test_run_sync_twice_on_one_client(url: str) -> None:
    client = PolosClient(url)
    assert order.run_sync(client, Order(item="a")) == "1 × a"
    assert plain.run_sync(client, {"item": "b"}) == "plain b"
    assert counting.run_sync(client, 1, initial_state={"n": 1}) == 2
    with pytest.raises(InvalidPayloadError):
        order.run_sync(client, {})
    assert order.run_sync(client, Order(item="c"), timeout=100) == "1 × c"


def test_run_sync_from_many_threads_on_one_client(url: str) -> None:
    client = PolosClient(url)
    for _ in range(3):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(order.run_sync, client, {"item": f"{n}"}) for n in range(16)]
            assert [each.result() for each in futures] == [f"1 × {n}" for n in range(16)]
    assert order.run_sync(client, {"item": "a"}) == "1 × a"


async def test_run_sync_from_a_thread_uses_the_clients_loop(client: PolosClient) -> None:
    result = await asyncio.to_thread(order.run_sync, client, Order(item="a"))
    assert result == "1 × a"
    assert len(await client.list_executions()) == 1
