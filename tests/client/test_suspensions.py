"""Answering through the client, on both stores: what it takes, and what it says to wrong calls."""

from typing import Any

import pytest

from polos import (
    AlreadyResumedError,
    ExecutionNotFoundError,
    PolosClient,
    Resumed,
    WorkflowContext,
    workflow,
)
from polos.errors import EncodeError, UsageError


@workflow(id="suspensions.twice")
async def twice(ctx: WorkflowContext) -> list[Any]:
    return [(await ctx.step.suspend("ok"))["data"] for _ in range(2)]


async def test_two_clients_of_one_store(client: PolosClient, url: str) -> None:
    handle = await twice.invoke(client)
    async with PolosClient(url) as other:
        told = await other.resume("suspensions.twice", handle.id, "ok", {"a": [1, "ü\u0000"]})
        assert isinstance(told, Resumed)
        await other.get_handle(handle.id).resume("ok#2", False)
        with pytest.raises(AlreadyResumedError) as caught:
            await client.resume(None, handle.id, "ok", 1)
        assert caught.value.accepted_at == told.accepted_at
    assert await handle.result() == [{"a": [1, "ü\u0000"]}, False]


async def test_wrong_calls_are_refused(client: PolosClient) -> None:
    handle = await twice.invoke(client)
    with pytest.raises(UsageError, match="suspend_execution_id=None: expected a non-empty text"):
        await client.resume("suspensions.twice")
    with pytest.raises(UsageError, match="suspend_step_key=3"):
        await client.resume(None, handle.id, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="suspend_workflow_id=''"):
        await client.resume("", handle.id, "ok")
    with pytest.raises(UsageError, match="not of 'other'"):
        await client.resume("other", handle.id, "ok", 1)
    with pytest.raises(EncodeError, match="cannot record data"):
        await client.resume(None, handle.id, "ok", object())
    with pytest.raises(ExecutionNotFoundError):
        await client.resume(None, "unknown", "ok", 1)
    with pytest.raises(UsageError, match="limit=0"):
        await client.list_suspensions(limit=0)
    wrong: list[Any] = [0, -1, "1", float("nan"), float("inf"), True]
    for timeout in wrong:
        with pytest.raises(UsageError, match="timeout is a finite number"):
            await WorkflowContext("w", "e").step.suspend("ok", timeout=timeout)
    assert not await client.list_suspensions(workflow_id="other")
    assert [each["step_key"] for each in await client.list_suspensions()] in ([], ["ok"])
