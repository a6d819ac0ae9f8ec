"""Die at every commit of a workflow with secrets, blobs and spilled state: nothing changes."""

from typing import Annotated, Any

import pytest

from polos import Blob, Secret, Spilled, WorkflowContext, WorkflowState, workflow
from polos.client.handle import ExecutionHandle
from polos.codecs import generate_key
from polos.testing import crash_sweep
from tests.sim.conftest import Fresh

KEY = generate_key()


class Kept(WorkflowState):
    token: Secret[str] = Secret("first")
    rows: Annotated[list[str], Spilled] = []
    last: Blob | None = None


class Plain(WorkflowState):
    rows: Annotated[list[str], Spilled] = []
    last: Blob | None = None


def build(effects: list[Any], schema: type[WorkflowState]) -> Any:
    def make(name: str) -> Blob:
        effects.append(name)
        return Blob.from_bytes(name.encode() * 50_000)

    @workflow
    async def inner(ctx: WorkflowContext, blob: Blob) -> str:
        return await ctx.step.run("read", lambda: "z" * 70_000) + str(blob.size)

    @workflow(state_schema=schema)
    async def outer(ctx: WorkflowContext, payload: str) -> dict[str, Any]:
        for name in ("one", "two"):
            ctx.state.last = await ctx.step.run(name, make, name)
            ctx.state.rows += [payload]
        if schema is Kept:
            ctx.state.token = Secret("second")
        text = await ctx.step.invoke_and_wait("inner", inner, ctx.state.last)
        content = await ctx.state.last.read()
        return {"text": text[-6:], "size": len(content), "blob": ctx.state.last}

    return outer


async def sweep(schema: type[WorkflowState], fresh: Fresh | None = None) -> None:
    effects: list[Any] = []
    outer = build(effects, schema)

    async def start(client: Any) -> ExecutionHandle:
        return await outer.invoke(client, "x" * 80_000)

    report = await crash_sweep(start, effects=effects, fresh=fresh)
    assert report.commits >= 5
    assert report.undisturbed.status == "completed"
    assert report.differences == []


async def test_a_death_at_any_commit_changes_nothing() -> None:
    await sweep(Plain)


async def test_a_death_at_any_commit_changes_nothing_that_is_encrypted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLOS_ENCRYPTION_KEY", KEY)
    await sweep(Kept)


@pytest.mark.slow
async def test_a_death_at_any_commit_changes_nothing_on_postgres(
    postgres: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLOS_ENCRYPTION_KEY", KEY)
    await sweep(Kept, postgres)
