"""`Worker` and `Polos`: retention, drain limit, what they serve; and the list of workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from polos import Polos, PolosClient, Worker, WorkflowContext, workflow
from polos.client import settings
from polos.errors import UsageError
from tests.guards import own_registry

__all__ = ["own_registry"]


@pytest.mark.parametrize("make", [Worker, Polos])
@pytest.mark.parametrize(
    "options",
    [{"retention": "3y"}, {"retention": 0}, {"drain_seconds": -1}, {"drain_seconds": True}],
)
def test_wrong_options_are_refused_by_name(make: Any, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(UsageError, match=rf"^{name}="):
        make(**options)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///a/b.db?mode=rw", "sqlite:///a/b.db?mode=rw"),
        ("postgresql://u:p@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:p@w@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
        ("postgresql://u@h/d?password=p&x=1", "postgresql://u@h/d?password=***&x=1"),
    ],
)
def test_a_log_holds_no_password(url: str, shown: str) -> None:
    assert settings.without_password(url) == shown


async def test_the_variable_is_the_default(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None: ...

    monkeypatch.setenv("POLOS_RETENTION", "2h")
    async with PolosClient(url) as client:
        assert (await client.node()).pruning.kept() == {"code": 7200}
    async with Polos(url=url) as polos:
        assert (await polos.node()).pruning.kept() == {"code": 7200}
    async with Polos(url=url, retention="forever") as polos:
        assert (await polos.node()).pruning.kept() == {}
    assert Worker(url=url).retention == 7200
    assert Worker(url=url, retention=60).retention == 60
    monkeypatch.setenv("POLOS_RETENTION", "soon")
    with pytest.raises(UsageError, match="POLOS_RETENTION='soon'"):
        await PolosClient(url).node()


async def test_workers_are_listed(url: str, tmp_path: Path) -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("held", asyncio.Event().wait)

    async with PolosClient(url) as looking:
        assert (await looking.list_workers())[0]["takes_queue"] is False
        async with Polos(url=url, drain_seconds=0) as polos:
            await code.invoke(polos)
            one, two = await looking.list_workers()
            assert (one["status"], one["takes_queue"], one["workflows"]) == (
                "live",
                True,
                ["code"],
            )
            assert one["running"] + one["queued"] == 1
            assert two["running"] + two["queued"] == 0
            assert one["id"] > two["id"]
        assert [each["id"] for each in await looking.list_workers()] == [two["id"]]
        stopped, _ = await looking.list_workers(stopped_within=600)
        assert (stopped["id"], stopped["status"]) == (one["id"], "stopped")
        with pytest.raises(UsageError, match="stopped_within"):
            await looking.list_workers(stopped_within=-1)


async def test_a_worker_is_from_its_first_moment_on_what_it_is_to_be(url: str) -> None:
    @workflow
    async def one(ctx: WorkflowContext) -> None: ...

    @workflow
    async def two(ctx: WorkflowContext) -> None: ...

    worker = Worker(url=url, workflows=[two])
    node = await worker.client.node()  # opened, and not serving yet
    assert node.runner.offering.workflows == {"two"}
    async with PolosClient(url) as looking:
        found = {tuple(each["workflows"]) for each in await looking.list_workers()}
    assert ("two",) in found
    await worker.client.close()
