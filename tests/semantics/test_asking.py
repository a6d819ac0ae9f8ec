"""Asking for executions by what they have, as programs do it."""

from typing import Any

import pytest

from polos import PolosClient, WorkflowContext, WorkflowState, workflow
from polos.errors import UsageError
from tests.semantics.conftest import Open


class Order(WorkflowState):
    amount: int = 0
    notes: list[str] = []


@pytest.fixture
def echo() -> Any:
    @workflow(id="echo")
    async def code(ctx: WorkflowContext, value: Any) -> Any:
        return value

    return code


@pytest.fixture
async def client(opened: Open) -> PolosClient:
    return await opened()


async def results(client: PolosClient, where: dict[str, Any]) -> list[Any]:
    found = await client.list_executions(where=where)
    assert found.note is not None
    return [each["result"] for each in found]


async def test_a_whole_result_or_payload_is_compared(client: PolosClient, echo: Any) -> None:
    for value in (3, 4, 2.5, "abc", True, None, ["a", 1], {"k": 3}):
        await echo(client, value)
    assert await results(client, {"result": 3}) == [3]
    assert await results(client, {"payload": 3}) == [3]
    assert await results(client, {"result": ("!=", 3)}) == [
        *({"k": 3}, ["a", 1], None, True, "abc", 2.5, 4),
    ]
    assert await results(client, {"result": [(">", 2), ("<", 4)]}) == [2.5, 3]
    assert await results(client, {"result": ("in", [4, True])}) == [True, 4]
    assert await results(client, {"result": None}) == [None]
    assert await results(client, {"result": ("contains", "b")}) == ["abc"]
    assert await results(client, {"result": ("contains", "a")}) == [["a", 1], "abc"]
    assert await results(client, {"result": ("contains", "k")}) == [{"k": 3}]
    assert await results(client, {"result": ("exists", False)}) == []
    groups = await client.count_executions(group_by="result")
    assert groups == {3: 1, 4: 1, 2.5: 1, "abc": 1, True: 1, None: 1}
    (none,) = await client.aggregate(sum="payload", where={"payload": "nothing"})
    assert none == {"group": None, "count": 0, "sum": None}
    by_status = await client.aggregate(sum="payload", group_by="status")
    assert [type(each["group"]) for each in by_status] == [str]
    (total,) = await client.aggregate(sum="payload")
    assert (total["count"], total["sum"]) == (8, 9.5)
    with pytest.raises(UsageError, match="no place"):
        await client.list_executions(where={"results": 3})
    nothing: Any = None
    with pytest.raises(UsageError, match="sum=None: expected a place"):
        await client.aggregate(sum=nothing)
    for value in (1, False, 0):
        await echo(client, value)
    counts = await client.count_executions(group_by="payload")
    assert sum(counts.values()) == 9, "1 and True are one key, and lose nothing"


async def test_a_whole_state_and_all_tags_are_asked_for_what_they_hold(
    client: PolosClient, echo: Any
) -> None:
    @workflow(id="order", state_schema=Order)
    async def order(ctx: WorkflowContext) -> str:
        return "order"

    await order(client, tags={"team": "a"})
    await echo(client, "echo")
    assert await results(client, {"state": ("contains", "amount")}) == ["order"]
    assert await results(client, {"state": ("exists", False)}) == ["echo"]
    assert await results(client, {"tags": ("contains", "team")}) == ["order"]
    assert await results(client, {"tags": ("exists", False)}) == ["echo"]
    assert await client.count_executions(group_by="tags") == {}


async def test_conditions_on_columns_are_those_of_filters(client: PolosClient) -> None:
    @workflow(id="order", state_schema=Order, index_state=["amount"])
    async def order(ctx: WorkflowContext) -> int:
        ctx.state.amount += 1
        await ctx.step.uuid("u")
        if ctx.state.amount == 3:
            raise ValueError("three")
        return ctx.state.amount

    for amount in range(5):
        handle = await order.invoke(client, initial_state=Order(amount=amount))
        async for _ in handle.watch_state():
            pass
    listed = await client.list_executions(workflow_id="order")
    assert [each["state"]["amount"] for each in listed] == [5, 4, 3, 2, 1]

    async def amounts(where: dict[str, Any], **filters: Any) -> list[int]:
        found = await client.list_executions(where=where, **filters)
        assert found.note is None
        return [each["state"]["amount"] for each in found]

    assert await amounts({"status": "failed", "state.amount": (">", 1)}) == [3]
    assert await amounts({"status": "failed", "state.amount": (">", 1)}, status="completed") == []
    assert await amounts({"status": "completed", "state.amount": ("!=", 2)}) == [5, 4, 1]
    assert await amounts({"workflow_id": "order", "state.amount": [(">", 1), ("<=", 4)]}) == [
        *(4, 3, 2),
    ]
    third = listed[2]["created_at"]
    early = {"created_at": ("<", third), "state.amount": ("exists", True)}
    assert await amounts(early) == [2, 1]
    assert await amounts({"created_at": (">=", third), "state.amount": ("in", [5, 3, 1])}) == [5, 3]
