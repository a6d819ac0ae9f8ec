"""DESIGN §2: a suspension waits for one answer, and none that was accepted is lost."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    AlreadyResumedError,
    ConflictError,
    ExecutionFailedError,
    FormError,
    PolosClient,
    StepExecutionError,
    WaitTimeoutError,
    WorkflowContext,
    workflow,
)
from polos.testing import Simulation
from tests.sim.helpers import by_hand, pass_time, status_of, turns

YES = {"fields": [{"key": "yes", "type": "boolean", "required": True}]}


async def is_open(simulation: Simulation, *keys: str) -> None:
    """Wait until exactly these keys are open."""
    for _ in range(5000):
        found = await simulation.client.list_suspensions()
        if sorted(each["step_key"] for each in found) == sorted(keys):
            return
        await asyncio.sleep(0)
    raise AssertionError(found)


async def steps(simulation: Simulation, execution_id: str) -> dict[str, str]:
    found = await simulation.client.get_steps(execution_id)
    return {each["step_key"]: each["status"] for each in found}


async def test_the_code_gets_the_event_that_resumed_it() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> dict[str, Any]:
        await ctx.step.uuid("one")
        return await ctx.step.suspend("ok", {"ask": "go?"})

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        assert await status_of(simulation, handle.id) == "waiting"
        assert await steps(simulation, handle.id) == {"one": "completed", "ok": "waiting"}
        (listed,) = await simulation.client.list_suspensions()
        assert listed["data"] == {"ask": "go?"}
        told = await simulation.client.resume("code", handle.id, "ok", {"go": [1, None]})
        assert (told.execution_id, told.step_key, told.early) == (handle.id, "ok", False)
        answer = await handle.result()
    assert answer == {
        "id": answer["id"],
        "sequence_id": 2,
        "topic": f"workflow/code/{handle.id}",
        "event_type": "resume_ok",
        "data": {"go": [1, None]},
        "created_at": told.accepted_at,
    }


@pytest.mark.parametrize("when", ["before", "after"])
async def test_another_process_goes_on_with_the_answer(when: str) -> None:
    ran: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> Any:
        await ctx.step.run("first", ran.append, "first")
        return (await ctx.step.suspend("ok"))["data"]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        if when == "before":
            await handle.resume("ok", 0)
        simulation.crash()
        await simulation.restart()
        if when == "after":
            await simulation.client.get_handle(handle.id).resume("ok", 0)
        assert await simulation.client.get_handle(handle.id).result() == 0
    assert ran == ["first"]


async def test_evicted_suspensions_go_on() -> None:
    @workflow
    async def code(ctx: WorkflowContext, n: int) -> Any:
        return (await ctx.step.suspend("ok", timeout=1000))["data"]

    async with by_hand(parked_max=1) as simulation:
        handles = [await code.invoke(simulation.client, n) for n in range(4)]
        await is_open(simulation, *["ok"] * 4)
        for n, handle in enumerate(handles):
            await handle.resume("ok", n)
        await pass_time(simulation, 2)
        assert [await handle.result() for handle in handles] == [0, 1, 2, 3]


# -- answers that come early ----------------------------------------------------------------------


async def test_an_answer_that_comes_before_the_wait_is_stored_is_not_lost() -> None:
    go = asyncio.Event()

    @workflow
    async def code(ctx: WorkflowContext) -> Any:
        await ctx.step.run("work", go.wait)
        await ctx.step.wait_for("pause", hours=1)  # it does not wake for what it did not ask
        return (await ctx.step.suspend("ok", {"_form": YES}))["data"]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert (await handle.resume("ok", {"yes": True})).early
        with pytest.raises(AlreadyResumedError):
            await handle.resume("ok", {"yes": False})
        go.set()
        assert await handle.result() == {"yes": True}


async def test_an_early_answer_that_does_not_fit_is_dropped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> Any:
        await ctx.step.wait_for("pause", hours=1)
        return (await ctx.step.suspend("ok", {"_form": YES}))["data"]

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await turns()
        await handle.resume("ok", {"yes": "maybe"})
        with caplog.at_level(logging.WARNING, "polos"):
            await pass_time(simulation, 3700, step=100)
        assert "dropped: the answer to 'ok'" in caplog.text
        assert await status_of(simulation, handle.id) == "waiting"
        await handle.resume("ok", {"yes": False})
        await pass_time(simulation, 1)
        assert await handle.result() == {"yes": False}


async def test_an_early_answer_is_found_beside_a_running_body() -> None:
    end = asyncio.Event()
    seen: list[Any] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def ask() -> None:
            await ctx.step.run("first", asyncio.sleep, 0)
            seen.append((await ctx.step.suspend("ok"))["data"])
            end.set()

        await asyncio.gather(ask(), ctx.step.run("body", end.wait))

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.resume("ok", "early")
        await handle.result()
    assert seen == ["early"]


# -- time -----------------------------------------------------------------------------------------


def timed() -> Any:
    @workflow(id="timed")
    async def code(ctx: WorkflowContext) -> Any:
        try:
            return (await ctx.step.suspend("ok", timeout=3600))["data"]
        except WaitTimeoutError as error:
            return [type(error).__name__, error.step_key, str(error)[:25]]

    return code


OVER = ["WaitTimeoutError", "ok", "Suspension 'ok' timed out"]


async def test_a_timeout_fires() -> None:
    async with Simulation() as simulation:
        handle = await timed().invoke(simulation.client)
        assert await handle.result() == OVER
        assert await steps(simulation, handle.id) == {"ok": "failed"}
        with pytest.raises(ConflictError, match="timed out"):
            await handle.resume("ok", 1)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_timeout_that_came_due_while_nobody_ran_it(answered: bool) -> None:
    async with by_hand() as simulation:
        handle = await timed().invoke(simulation.client)
        await is_open(simulation, "ok")
        if answered:
            simulation.node.runner.kill()  # the answer comes where nobody goes on with it
            await handle.resume("ok", "in time")
        simulation.crash()
        simulation.clock.advance(10_000)
        await simulation.restart()
        again = simulation.client.get_handle(handle.id)
        if not answered:
            with pytest.raises(ConflictError, match="timed out at"):
                await again.resume("ok", "late")
        await pass_time(simulation, 2)
        assert await again.result() == ("in time" if answered else OVER)


async def test_a_timeout_fires_beside_a_running_body() -> None:
    go = asyncio.Event()

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        waits = ctx.step.suspend("ok", timeout=5), ctx.step.run("body", go.wait)
        first, _ = await asyncio.gather(*waits, return_exceptions=True)
        return type(first).__name__

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 6)
        assert (await steps(simulation, handle.id))["ok"] == "failed"
        go.set()
        await pass_time(simulation, 1)
        assert await handle.result() == "WaitTimeoutError"


# -- more than one --------------------------------------------------------------------------------


async def test_concurrent_suspensions_and_repeated_keys() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> list[Any]:
        answers = await asyncio.gather(*(ctx.step.suspend("ok") for _ in range(3)))
        return [each["data"] for each in answers]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok", "ok#2", "ok#3")
        for key in ("ok#3", "ok", "ok#2"):
            await handle.resume(key, key)
        assert await handle.result() == ["ok", "ok#2", "ok#3"]


async def test_the_root_answers_for_its_children() -> None:
    @workflow
    async def child(ctx: WorkflowContext, n: int) -> Any:
        return (await ctx.step.suspend(f"ok{n}"))["data"]

    @workflow
    async def parent(ctx: WorkflowContext) -> list[Any]:
        waits = (ctx.step.invoke_and_wait(f"c{n}", child, n) for n in range(2))
        return list(await asyncio.gather(*waits))

    async with Simulation() as simulation:
        handle = await parent.invoke(simulation.client)
        await is_open(simulation, "ok0", "ok1")
        root = await simulation.client.list_suspensions(root_execution_id=handle.id)
        assert {each["root_execution_id"] for each in root} == {handle.id}
        await simulation.client.resume("parent", handle.id, "ok1", "b")
        await simulation.client.resume("child", root[0]["execution_id"], "ok0", "a")
        assert await handle.result() == ["a", "b"]


def test_a_plain_function_suspends(tmp_path: Any) -> None:
    @workflow
    def code(ctx: WorkflowContext) -> Any:
        answer: Any = ctx.step.suspend("ok", {"ask": 1}, timeout=60)
        return answer["data"]

    async def main() -> Any:
        async with PolosClient(f"sqlite:///{tmp_path}/polos.db") as client:
            handle = await code.invoke(client)
            await handle.resume("ok", "plain")
            return await handle.result()

    assert asyncio.run(main()) == "plain"


# -- forms ----------------------------------------------------------------------------------------


async def test_an_answer_that_does_not_fit_leaves_it_waiting() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> Any:
        return (await ctx.step.suspend("ok", {"_form": YES}))["data"]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        with pytest.raises(FormError, match="yes: required") as caught:
            await handle.resume("ok", {})
        assert list(caught.value.fields) == ["yes"]
        await is_open(simulation, "ok")
        await handle.resume("ok", {"yes": True, "more": "x"})
        assert await handle.result() == {"yes": True, "more": "x"}


class Decision(BaseModel):
    approved: bool
    by: str = "somebody"


async def test_a_model_as_the_form_is_what_the_code_gets() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> Decision:
        answer = await ctx.step.suspend("ok", {"amount": 3}, form=Decision)
        return answer["data"]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        (listed,) = await simulation.client.list_suspensions()
        assert listed["data"]["amount"] == 3
        assert [each["key"] for each in listed["form"]["fields"]] == ["approved", "by"]
        await handle.resume("ok", Decision(approved=True))
        assert await handle.result() == Decision(approved=True)


async def test_a_broken_form_fails_the_step() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.suspend("ok", {"_form": {"fields": [{"type": "text"}]}})
        except StepExecutionError as error:
            return str(error)
        return ""

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert "cannot suspend: _form.fields[0] has no key" in await handle.result()
        assert await simulation.client.list_suspensions() == []


# -- ways to end ----------------------------------------------------------------------------------


async def test_a_suspended_execution_can_be_cancelled() -> None:
    cleaned: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        try:
            await ctx.step.suspend("ok")
        finally:
            await ctx.step.run("clean", cleaned.append, "up")

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        await handle.cancel()
        with pytest.raises(Exception, match="cancelled"):
            await handle.result()
        assert await simulation.client.list_suspensions() == []
    assert cleaned == ["up"]


async def test_what_the_code_gave_up_cannot_be_answered_any_more() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> str:
        asked = asyncio.ensure_future(ctx.step.suspend("ok"))
        await ctx.step.wait_for("a while", seconds=10)
        asked.cancel()
        await ctx.step.wait_for("longer", hours=10)
        return "went on"

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        await pass_time(simulation, 15)
        await is_open(simulation)
        assert (await handle.resume("ok", 1)).early
        await pass_time(simulation, 40_000, step=1000)
        assert await handle.result() == "went on"


async def test_what_is_open_at_the_end_is_over() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> str:
        asyncio.ensure_future(ctx.step.suspend("ok"))  # noqa: RUF006
        await ctx.step.wait_for("a while", seconds=10)
        return "done"

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == "done"
        assert await simulation.client.list_suspensions() == []
        with pytest.raises(ConflictError, match="is completed"):
            await handle.resume("ok", 1)


@pytest.mark.parametrize("by", ["retry", "max_retries"])
async def test_a_retry_asks_again(by: str) -> None:
    broken = ["yes"]

    @workflow(max_retries=1 if by == "max_retries" else 0)
    async def code(ctx: WorkflowContext) -> Any:
        def fail() -> None:
            if broken:
                broken.pop()
                raise ValueError("broken")

        async def later() -> None:
            await ctx.step.wait_for("w", seconds=5)
            await ctx.step.run("fails", fail, max_retries=0)

        answer, _ = await asyncio.gather(ctx.step.suspend("ok", {"n": 1}), later())
        return answer["data"]

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "ok")
        await pass_time(simulation, 6)
        if by == "retry":
            with pytest.raises(ExecutionFailedError, match="broken"):
                await handle.result()
            await is_open(simulation)
            await simulation.client.retry_execution(handle.id)
        await pass_time(simulation, 10)
        await is_open(simulation, "ok")
        assert not (await handle.resume("ok", 7)).early
        await pass_time(simulation, 2)
        assert await handle.result() == 7


# -- from workflow to workflow --------------------------------------------------------------------


async def test_a_workflow_answers_another() -> None:
    @workflow
    async def asks(ctx: WorkflowContext) -> Any:
        return (await ctx.step.suspend("ok", {"_form": YES}))["data"]

    @workflow
    async def tells(ctx: WorkflowContext, id: str) -> list[str]:
        told: list[str] = []
        for n, data in enumerate(("no", {"yes": True}, {"yes": False})):
            try:
                told.append(str(await ctx.step.resume(f"try {n}", "ok", id, "asks", data)))
            except StepExecutionError as error:
                told.append(f"{error.error_type}: {error}")
        try:
            await ctx.step.resume("nobody", "ok", "unknown", "asks", 1)
        except StepExecutionError as error:
            told.append(f"{error.error_type}")
        return told

    async with Simulation() as simulation:
        handle = await asks.invoke(simulation.client)
        await is_open(simulation, "ok")
        told = await (await tells.invoke(simulation.client, handle.id)).result()
        assert await handle.result() == {"yes": True}
    assert told[0].startswith("FormError: Step 'try 0' could not resume: the answer to 'ok'")
    assert told[1] == "None"
    assert told[2].startswith("AlreadyResumedError: Step 'try 2' could not resume: 'ok'")
    assert told[3] == "ExecutionNotFoundError"


async def test_people_are_told_the_page_where_they_can_answer() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("a b", {"ask": 1})

    async with Simulation(approval_url="https://polos.example") as simulation:
        handle = await code.invoke(simulation.client)
        await is_open(simulation, "a b")
        (listed,) = await simulation.client.list_suspensions()
        page = f"https://polos.example/approve/{handle.id}/a%20b"
        assert listed["data"] == {"ask": 1, "_approval_url": page}


async def test_an_answer_without_data_is_an_empty_dict() -> None:
    @workflow(id="bare")
    async def code(ctx: WorkflowContext) -> list[Any]:
        found = [await ctx.step.suspend(key) for key in ("a", "b", "c", "d")]
        return [each["data"] for each in found]

    @workflow(id="answering")
    async def answering(ctx: WorkflowContext, execution_id: str) -> None:
        await ctx.step.resume("r", "c", execution_id)

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.resume("a")
        await simulation.client.resume("bare", handle.id, "b")
        await answering(simulation.client, handle.id)
        await handle.resume("d", None)  # said in so many words
        assert await handle.result() == [{}, {}, {}, None]
