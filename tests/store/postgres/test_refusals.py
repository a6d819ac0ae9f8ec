"""The server refuses a commit: nothing that builds on it is written, and the execution goes on."""

import asyncio
from typing import Any

import asyncpg
import pytest

from polos import PolosClient, WorkflowContext, WorkflowState, workflow
from polos.workflow import registry
from tests.postgres import fresh_url


class Tally(WorkflowState):
    log: list[str] = []


async def test_what_builds_on_a_refused_change_is_not_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())
    on_its_way = asyncio.Event()
    refused: list[str] = []
    stages: list[str] = []

    @workflow(id="refusals.code", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[str]:
        async def first() -> None:
            ctx.state.log.append("a")
            stages.append("armed")

        async def second() -> None:
            await on_its_way.wait()  # recorded behind the change that is refused
            ctx.state.log.append("b")

        await asyncio.gather(ctx.step.run("a", first), ctx.step.run("b", second))
        await ctx.step.run("c", lambda: ctx.state.log.append("c"))
        return ctx.state.log

    def gate(moment: str) -> None:
        if not stages or refused:
            return
        if moment == "begin":
            on_its_way.set()
        elif moment == "before":
            refused.append(moment)
            raise asyncpg.DiskFullError("no space left on device")

    async with PolosClient(fresh_url()) as client:
        node: Any = await client.node()
        node.store.gate = gate
        handle = await code.invoke(client)
        async with asyncio.timeout(100):
            while (await client.get_execution(handle.id))["status"] != "completed":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert refused
        entries = await node.store.states(handle.id, handle.id)
        assert [each.version for each in entries] == list(range(len(entries)))
        assert sorted(await handle.result()) == ["a", "b", "c"]
        found_state: Any = await handle.state()
        assert sorted(found_state["log"]) == ["a", "b", "c"]
        found = {step["step_key"]: step["status"] for step in await client.get_steps(handle.id)}
        assert found == {"a": "completed", "b": "completed", "c": "completed"}
