"""`ctx.patched`, code versions and deployments, as an author meets them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polos import ExecutionFailedError, Workflow, WorkflowContext, workflow
from polos.errors import UsageError
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import JournalFile, ManualClock, ReplayOutcome, Simulation, replay
from polos.workflow import registry
from tests.sim.helpers import by_hand, pass_time, rows_of, status_of, turns

Ask = Callable[[str], bool]
Code = Callable[[WorkflowContext, Ask], Awaitable[Any]]


def never(patch_id: str) -> bool:
    return False


async def noop() -> None:
    pass


def define(code: Code, *, new: bool, **options: Any) -> Workflow[Any]:
    """Define the workflow as it is before the change, or with it."""
    registry.default = registry.Registry()

    @workflow(id="code", **options)
    async def defined(ctx: WorkflowContext) -> Any:
        return await code(ctx, ctx.patched if new else never)

    return defined


async def recorded_by_old(code: Code) -> JournalFile:
    old = define(code, new=False)
    async with Simulation() as simulation:
        handle = await old.invoke(simulation.client)
        await handle.result()
        return await JournalFile.of(simulation.client, handle.id)


async def replayed_by_new(code: Code, journal: JournalFile, rows: int | None) -> ReplayOutcome:
    define(code, new=True)
    return await replay(JournalFile(journal.execution, journal.rows[:rows], journal.states))


async def changed(ctx: WorkflowContext, patched: Ask) -> list[bool]:
    await ctx.step.run("a", noop)
    answers = [patched("change")]
    await ctx.step.run("new" if answers[0] else "old", noop)
    answers.append(patched("change"))
    return answers


@pytest.mark.parametrize(
    ("rows", "answer", "ran"),
    [(0, True, ["a", "new"]), (1, True, ["new"]), (2, False, [])],
)
async def test_old_code_runs_only_where_it_has_been(
    rows: int, answer: bool, ran: list[str]
) -> None:
    outcome = await replayed_by_new(changed, await recorded_by_old(changed), rows)
    assert outcome.result == [answer, answer]
    assert outcome.new_steps == ran


async def test_a_new_execution_runs_the_new_code_and_its_steps_show_nothing_of_it() -> None:
    code = define(changed, new=True)
    commits: list[str] = []
    async with Simulation() as simulation:
        simulation.on_transaction(commits.append)
        handle = await code.invoke(simulation.client)
        assert await handle.result() == [True, True]
        simulation.on_transaction(None)
        steps = await simulation.client.get_steps(handle.id)
        rows = await rows_of(simulation, handle.id)
    assert [step["step_key"] for step in steps] == ["a", "new"]
    assert [(row["kind"], row["key"], row["body"]) for row in rows] == [
        ("run", "a", "null"),
        ("patch", "change", "true"),
        ("run", "new", "null"),
    ]
    assert commits.count("after") == 4  # start, a, new with the patch, the end


async def test_a_wait_that_the_old_code_opened_is_behind_the_change() -> None:
    async def code(ctx: WorkflowContext, patched: Ask) -> bool:
        new = patched("change")
        await ctx.step.wait_for("new" if new else "old", hours=1)
        return new

    old = define(code, new=False)
    world: dict[str, Any] = {"database": MemoryDatabase(), "clock": ManualClock(auto=False)}
    async with by_hand(**world) as simulation:
        handle = await old.invoke(simulation.client)
        await turns()
        assert await status_of(simulation, handle.id) == "waiting"
    define(code, new=True)
    async with by_hand(**world) as simulation:
        await pass_time(simulation, 3700, step=100)
        assert await simulation.client.get_handle(handle.id).result() is False


async def test_changes_are_decided_one_by_one() -> None:
    async def code(ctx: WorkflowContext, patched: Ask) -> dict[str, bool]:
        answers = {"first": patched("first")}
        await ctx.step.run("a", noop)
        answers["second"] = patched("second")
        await ctx.step.run("b", noop)
        return answers

    outcome = await replayed_by_new(code, await recorded_by_old(code), 1)
    assert outcome.result == {"first": False, "second": True}


async def test_an_id_may_be_the_key_of_a_step() -> None:
    async def code(ctx: WorkflowContext, patched: Ask) -> list[Any]:
        answer = patched("same")
        await ctx.step.run("same", noop)
        return [answer, await ctx.step.run("same", noop), patched("same")]

    new = define(code, new=True)
    async with Simulation() as simulation:
        handle = await new.invoke(simulation.client)
        assert await handle.result() == [True, None, True]
        journal = await JournalFile.of(simulation.client, handle.id)
    again = await replay(journal)
    assert (again.result, again.new_steps) == ([True, None, True], [])


async def gathered(ctx: WorkflowContext, patched: Ask) -> int:
    async def branch(n: int) -> int:
        await ctx.step.run(f"x{n}", noop)
        patched(f"change {n}")
        await ctx.step.run(f"y{n}", noop)
        return n

    return sum(await asyncio.gather(*(branch(n) for n in range(3))))


@pytest.mark.parametrize("code", [changed, gathered])
async def test_a_call_that_is_gone_neither_warns_nor_holds_anything_up(
    code: Code, caplog: pytest.LogCaptureFixture
) -> None:
    """The patch is retired: its rows stay, nobody asks for them."""
    new = define(code, new=True)
    async with Simulation() as simulation:
        handle = await new.invoke(simulation.client)
        result = await handle.result()
        journal = await JournalFile.of(simulation.client, handle.id)
    assert any(row["kind"] == "patch" for row in journal.rows)
    registry.default = registry.Registry()

    @workflow(id="code")
    async def retired(ctx: WorkflowContext) -> Any:
        return await code(ctx, lambda _: True)

    with caplog.at_level(logging.WARNING):
        again = await replay(journal)
    assert (again.status, again.result, again.new_steps) == ("completed", result, [])
    assert caplog.records == []


async def test_a_plain_workflow_asks_from_its_thread() -> None:
    @workflow(id="code")
    def old(ctx: WorkflowContext) -> list[bool]:
        step: Any = ctx.step
        step.uuid("a")
        step.uuid("b")
        return []

    async with Simulation() as simulation:
        handle = await old.invoke(simulation.client)
        await handle.result()
        journal = await JournalFile.of(simulation.client, handle.id)
    registry.default = registry.Registry()

    @workflow(id="code")
    def new(ctx: WorkflowContext) -> list[bool]:
        step: Any = ctx.step
        answers = [ctx.patched("first")]
        step.uuid("a")
        answers.append(ctx.patched("second"))
        step.uuid("b")
        answers.append(ctx.patched("third"))
        return answers

    assert (await replay(journal)).result == [False, False, True]
    async with Simulation() as simulation:
        assert await new(simulation.client) == [True, True, True]


@pytest.mark.parametrize("plain", [True, False])
async def test_a_body_is_recorded_whole_and_cannot_ask(plain: bool) -> None:
    caught: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        def body() -> None:
            try:
                ctx.patched("change")
            except UsageError as error:
                caught.append(str(error))

        async def async_body() -> None:
            body()

        await ctx.step.run("a", body if plain else async_body)

    async with Simulation() as simulation:
        await code(simulation.client)
    assert len(caught) == 1
    assert "inside the body of step 'a'" in caught[0]


@pytest.mark.parametrize("patch_id", ["", None, 7, "a\0", "\ud800"])
async def test_an_id_is_a_text(patch_id: Any) -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> str:
        try:
            ctx.patched(patch_id)
        except UsageError as error:
            return str(error)
        return ""

    async with Simulation() as simulation:
        assert await code(simulation.client) == (
            f"patch id {patch_id!r}: expected a non-empty string without NUL or lone surrogate"
        )


def test_a_context_that_was_built_by_hand_runs_the_newest_code() -> None:
    assert WorkflowContext("code", "id").patched("change") is True


async def test_code_that_asks_while_its_execution_waits_goes_on_in_place() -> None:
    """The answer is written with the next claim; before it the journal has not moved on."""
    go = asyncio.Event()
    runs: list[int] = []

    @workflow(id="code")
    async def code(ctx: WorkflowContext) -> bool:
        runs.append(1)

        async def beside() -> bool:
            await go.wait()
            answer = ctx.patched("change")
            await ctx.step.run("new", noop)
            return answer

        _, answer = await asyncio.gather(ctx.step.wait_for("nap", hours=1), beside())
        return answer

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        assert await status_of(simulation, handle.id) == "waiting"
        go.set()
        await pass_time(simulation, 1)
        rows = await rows_of(simulation, handle.id)
        assert [row["key"] for row in rows] == ["nap", "change", "new"]
        await pass_time(simulation, 3700, step=100)
        assert await handle.result() is True
    assert runs == [1]


async def test_an_answer_survives_the_retry_of_a_failed_execution() -> None:
    fail = [True]

    async def maybe() -> None:
        if fail:
            raise ValueError("not yet")

    async def code(ctx: WorkflowContext, patched: Ask) -> bool:
        await ctx.step.run("a", noop)
        new = patched("change")
        await ctx.step.run("new" if new else "old", noop)
        await ctx.step.run("maybe", maybe, max_retries=0)
        return new

    old = define(code, new=False)
    database = MemoryDatabase()
    async with Simulation(database=database) as simulation:
        handle = await old.invoke(simulation.client)
        with pytest.raises(ExecutionFailedError):
            await handle.result()
    define(code, new=True)
    async with Simulation(database=database) as simulation:
        again = await simulation.client.retry_execution(handle.id)
        with pytest.raises(ExecutionFailedError):
            await again.result()
        rows = await rows_of(simulation, handle.id)
        assert [row["body"] for row in rows if row["kind"] == "patch"] == ["false"]
        fail.clear()
        again = await simulation.client.retry_execution(handle.id)
        assert await again.result() is False


async def test_executions_and_their_children_remember_the_code_that_started_them() -> None:
    @workflow(version="c7")
    async def child(ctx: WorkflowContext) -> str | None:
        return ctx.code_version

    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        return [ctx.code_version, await ctx.step.invoke_and_wait("c", child)]

    async with Simulation() as simulation:
        handle = await parent.invoke(simulation.client)
        assert await handle.result() == [parent.code_version, "c7"]
        found = await simulation.client.list_executions()
    assert {each["workflow_id"]: each["code_version"] for each in found} == {
        "parent": parent.code_version,
        "child": "c7",
    }


async def napping(ctx: WorkflowContext, patched: Ask) -> None:
    await ctx.step.wait_for("nap", seconds=1)


@pytest.mark.parametrize(
    ("options", "version", "reason"),
    [
        (
            {"deployment_id": "green"},
            "1",
            "no running process of deployment blue has registered code",
        ),
        (
            {"deployment_id": "blue", "match_code": True},
            "2",
            "no running process has the code version 1 of code",
        ),
        ({"deployment_id": "blue", "match_code": True}, "1", None),
        ({"deployment_id": "blue"}, "2", None),
    ],
)
async def test_what_a_dead_process_left_is_for_who_may_run_it(
    options: dict[str, Any], version: str, reason: str | None
) -> None:
    world: dict[str, Any] = {"database": MemoryDatabase(), "clock": ManualClock(auto=False)}
    code = define(napping, new=False, version="1")
    async with by_hand(**world, deployment_id="blue") as simulation:
        simulation.client.deployment_id = "blue"
        handle = await code.invoke(simulation.client)
        await turns()
        assert await status_of(simulation, handle.id) == "waiting"
    define(napping, new=False, version=version)
    async with by_hand(**world, **options) as simulation:
        await pass_time(simulation, 5)
        shown = await simulation.client.get_execution(handle.id)
        assert shown["blocked_reason"] == reason
        assert shown["status"] == ("completed" if reason is None else "waiting")
    define(napping, new=False, version="1")
    async with by_hand(**world, deployment_id="blue", match_code=True) as simulation:
        await pass_time(simulation, 5)
        assert await status_of(simulation, handle.id) == "completed"
