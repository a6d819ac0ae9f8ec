"""Claims of one worker that overlap while connections are lost: one attempt for each number."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from polos import (
    ExecutionCancelledError,
    Polos,
    PolosClient,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.client.client import Client
from polos.core.model import Work
from polos.store.postgres import verbs
from polos.workflow import registry
from tests.postgres import fresh_url


class Tally(WorkflowState):
    log: list[str] = []


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())


async def queue(client: Client, workflow_id: str) -> str:
    """Start as a process without the code does."""
    node: Any = await client.node()
    start = node.engine.remote_start(workflow_id, "null", None, None)
    return await node.engine.start(start)


async def test_what_two_calls_claimed_is_run_once() -> None:
    ran: list[str] = []
    go = asyncio.Event()

    @workflow(id="claims.code")
    async def code(ctx: WorkflowContext) -> None:
        async def body() -> None:
            ran.append(ctx.execution_id)
            await go.wait()

        await ctx.step.run("a", body)

    async with PolosClient(fresh_url()) as client:
        node: Any = await client.node()
        id_ = await queue(client, "claims.code")
        store, runner = node.store, node.runner

        async def sent_again(
            worker_id: str,
            keys: Sequence[tuple[str, str, int]],
            parked: dict[str, tuple[int, int]],
            now: int,
            limit: int | None = None,
        ) -> list[Work]:
            return await store.do(
                lambda link, _: verbs.claim(
                    link, worker_id, keys, parked, now, limit=len(keys), again=True
                )
            )

        store.claim = sent_again
        keys = [(id_, id_, 0)]
        await asyncio.gather(runner._claim(keys, 1), runner._claim(keys, 1))
        async with asyncio.timeout(100):
            while not ran:  # noqa: ASYNC110 - a body, which may run twice
                await asyncio.sleep(0)
        go.set()
        await client.get_handle(id_).result(timeout=100)
        assert ran == [id_]
        assert (await client.get_execution(id_))["attempt"] == 1


async def test_state_of_a_start_without_the_code_is_replayed_from_its_beginning() -> None:
    """There is no state entry 0; the first recorded one is not where it began."""
    url = fresh_url()
    first_begun = asyncio.Event()
    lives: list[int] = []

    @workflow(id="claims.branches", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[str]:
        lives.append(1)
        alive = len(lives)

        async def quick() -> None:
            ctx.state.log.append("quick")

        async def slow() -> None:
            if alive == 1:
                first_begun.set()
                await asyncio.Event().wait()
            ctx.state.log.append("slow")

        await asyncio.gather(ctx.step.run("quick", quick), ctx.step.run("slow", slow))
        return ctx.state.log

    async with Polos(url=url) as first:
        id_ = await queue(first, "claims.branches")
        async with asyncio.timeout(100):
            await first_begun.wait()
            while not await first.get_steps(id_):  # noqa: ASYNC110 - a row
                await asyncio.sleep(0.01)
        node: Any = await first.node()
        node.runner._give_up_draining()  # the body that hangs is not waited for
    async with Polos(url=url) as second:
        assert sorted(await second.get_handle(id_).result(timeout=100)) == ["quick", "slow"]
        assert len(lives) == 2


async def test_a_parent_and_its_children_are_cancelled_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A child that ended of the same request does not make its parent fail."""

    @workflow(id="claims.child")
    async def child(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("ever", days=1)

    @workflow(id="claims.parent")
    async def parent(ctx: WorkflowContext) -> None:
        await asyncio.gather(*(ctx.step.invoke_and_wait(f"c{n}", child) for n in range(2)))

    async def reaches(client: Client, workflow_id: str, count: int) -> list[str]:
        while True:
            found = await client.list_executions(workflow_id=workflow_id, status="waiting")
            if len(found) == count:
                return [each["id"] for each in found]
            await asyncio.sleep(0.01)

    url = f"{fresh_url()}&bells=off"
    async with PolosClient(url) as worker, asyncio.timeout(100):
        handle = await parent.invoke(worker)
        await reaches(worker, "claims.parent", 1)
        children = await reaches(worker, "claims.child", 2)
        monkeypatch.setattr(registry, "default", registry.Registry())
        async with PolosClient(url) as looker:
            await looker.cancel_execution(handle.id)
        # The worker hears of its children first: the end of one wakes the parent.
        node: Any = await worker.node()
        await node.runner._claim([(handle.id, child_id, 1) for child_id in children], 2)
        with pytest.raises(ExecutionCancelledError):
            await handle.result()
