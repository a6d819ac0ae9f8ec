"""Workers and clients of deployments, on a file: who takes whose queued work."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polos import Polos, PolosClient, Worker, WorkflowContext, workflow
from polos.errors import WorkflowNotRegisteredError
from tests.guards import no_hang

__all__ = ["no_hang"]


@workflow(id="versions.echo", version="1")
async def echo(ctx: WorkflowContext, payload: str) -> list[Any]:
    return [payload, ctx.deployment_id, ctx.code_version]


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    """Let a worker serve for a while."""
    task = asyncio.create_task(worker.run())
    while worker.client._node is None or not worker.client._node.runner.offering.takes_queue:  # noqa: ASYNC110
        await asyncio.sleep(0)
    yield
    await worker.shutdown()
    await task


@contextlib.asynccontextmanager
async def no_room(url: str, **options: Any) -> AsyncIterator[PolosClient]:
    """Open a client that starts executions and has no room to run them: others may."""
    async with PolosClient(url, **options) as client:
        (await client.node()).runner._concurrency = 0
        yield client


async def where(client: PolosClient, execution_id: str) -> str | None:
    return (await client.get_execution(execution_id))["assigned_to_worker"]


async def test_a_worker_of_the_deployment_runs_its_executions(url: str) -> None:
    async with no_room(url, deployment_id="blue") as client:
        handle = await echo.invoke(client, "x")
        async with running(Worker(url=url, deployment_id="blue", match_code=True)):
            assert await handle.result(10) == ["x", "blue", "1"]


async def test_a_worker_of_another_deployment_leaves_them_alone(url: str) -> None:
    async with no_room(url, deployment_id="blue") as client, no_room(url) as other:
        of_blue = await echo.invoke(client, "blue")
        anyones = await echo.invoke(other, "anyone's")
        async with running(Worker(url=url, deployment_id="green")):
            assert await anyones.result(10) == ["anyone's", None, "1"]
            assert (await of_blue.get())["status"] == "queued"
        async with Polos(url=url, deployment_id="blue"):
            assert await of_blue.result(10) == ["blue", "blue", "1"]


async def test_what_a_worker_s_client_starts_is_of_the_worker_s_deployment(url: str) -> None:
    async with PolosClient(url) as client:
        worker = Worker(client=client, deployment_id="blue")
        assert (worker.deployment_id, client.deployment_id) == ("blue", "blue")
        async with running(worker):
            assert await echo(client, "x") == ["x", "blue", "1"]


@pytest.mark.parametrize("serving", [Worker, Polos])
async def test_who_compares_code_leaves_other_code_s_executions_alone(
    url: str, serving: type[Worker | Polos], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with no_room(url) as client:
        old = await echo.invoke(client, "old")
        monkeypatch.setattr(echo, "_code_version", "2")
        new = await echo.invoke(client, "new")
        async with contextlib.AsyncExitStack() as stack:
            strict = serving(url=url, match_code=True)
            if isinstance(strict, Worker):
                await stack.enter_async_context(running(strict))
            else:
                await stack.enter_async_context(strict)
            assert await new.result(10) == ["new", None, "2"]
            assert (await old.get())["status"] == "queued"
        async with running(Worker(url=url)):
            assert await old.result(10) == ["old", None, "1"]


async def test_a_workflow_that_is_defined_anew_is_offered_anew(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Polos(url=url, match_code=True) as polos:
        assert await echo(polos, "x") == ["x", "default", "1"]
        monkeypatch.setattr(echo, "_code_version", "2")
        assert await echo(polos, "x") == ["x", "default", "2"]
        node: Any = await polos.node()
        (record,) = await node.store.live_workers()
        assert json.loads(record.versions)[echo.id] == "2"


async def test_a_start_by_id_needs_a_worker_of_the_deployment(url: str) -> None:
    async with PolosClient(url) as client:
        node = await client.node()
        node.registry = type(node.registry)()  # as in a process that does not import the workflow
        client.deployment_id = "blue"
        async with running(Worker(url=url, workflows=[echo], deployment_id="green")):
            with pytest.raises(WorkflowNotRegisteredError, match="of deployment blue"):
                await client.invoke(echo.id, "x")
            async with running(Worker(url=url, workflows=[echo], deployment_id="blue")):
                handle = await client.invoke(echo.id, "x")
                assert await handle.result(10) == ["x", "blue", None]
