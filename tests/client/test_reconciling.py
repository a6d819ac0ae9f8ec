"""`reconcile=`: whether an effect took place is asked before it is tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polos import (
    Done,
    ExecutionCancelledError,
    ExecutionFailedError,
    NotDone,
    Unknown,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.testing import Simulation
from tests.client.test_sagas import until_waiting


class Bank:
    """Charges, and what is known of them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.charged = 0
        self.asked: list[str] = []

    def charge(self) -> str:
        self.charged += 1
        return f"charge {self.charged}"

    def check(self, key: str) -> Any:
        self.asked.append(key)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def killed_after_the_charge(simulation: Simulation, bank: Bank) -> str:
    """Start an execution whose process dies when the card was charged and nothing was recorded."""
    hangs = [True]

    async def charge() -> str:
        receipt = bank.charge()
        if hangs.pop() if hangs else False:
            await asyncio.Event().wait()
        return receipt

    @workflow(id="reconciling.pay")
    async def pay(ctx: WorkflowContext) -> Any:
        await ctx.step.run("before", dict)
        return await ctx.step.run(
            "charge", charge, reconcile=bank.check, max_retries=1, base_delay=0
        )

    handle = await pay.invoke(simulation.client)
    while not bank.charged:  # noqa: ASYNC110
        await asyncio.sleep(0)
    simulation.crash()
    await simulation.restart()
    return handle.id


async def test_the_intent_is_durable_before_the_body_begins(simulation: Simulation) -> None:
    seen: list[Any] = []

    @workflow(id="reconciling.intent")
    async def code(ctx: WorkflowContext) -> None:
        async def look() -> None:
            steps = await simulation.client.get_steps(ctx.execution_id)
            seen.extend((s["step_key"], s["status"]) for s in steps)

        await ctx.step.run("look", look, reconcile=NotDone)

    await code(simulation.client)
    assert seen == [("look", "running")]


async def test_nobody_is_asked_if_all_goes_well(simulation: Simulation) -> None:
    bank = Bank()

    @workflow(id="reconciling.well")
    async def code(ctx: WorkflowContext) -> str:
        return await ctx.step.run("charge", bank.charge, reconcile=bank.check)

    assert await code(simulation.client) == "charge 1"
    assert bank.asked == []


async def test_what_took_place_is_recorded_and_not_done_again(simulation: Simulation) -> None:
    bank = Bank(Done("charge 1"))
    execution_id = await killed_after_the_charge(simulation, bank)
    handle = simulation.client.get_handle(execution_id)
    assert await handle.result() == "charge 1"
    assert bank.charged == 1
    assert len(bank.asked[0]) == 32


@pytest.mark.parametrize("answer", [NotDone, NotDone()])
async def test_what_did_not_take_place_is_tried_again(simulation: Simulation, answer: Any) -> None:
    bank = Bank(answer)
    execution_id = await killed_after_the_charge(simulation, bank)
    handle = simulation.client.get_handle(execution_id)
    assert await handle.result() == "charge 2"
    assert len(bank.asked) == 1


async def test_unknown_parks_until_a_retry_asks_again(simulation: Simulation) -> None:
    bank = Bank(Unknown("the bank does not answer"), Unknown(), Done("charge 1"))
    execution_id = await killed_after_the_charge(simulation, bank)
    handle = simulation.client.get_handle(execution_id)
    await until_waiting(simulation, handle.id)
    shown = await simulation.client.get_execution(handle.id)
    assert shown["blocked_reason"] == (
        "unknown outcome of step 'charge': the bank does not answer; find out, then let retry ask "
        "its reconcile again"
    )
    await simulation.client.retry_execution(handle.id)
    await until_waiting(simulation, handle.id)
    assert len(bank.asked) == 2
    await simulation.client.retry_execution(handle.id)
    assert await handle.result() == "charge 1"
    assert bank.charged == 1
    assert len(set(bank.asked)) == 1


@pytest.mark.parametrize("answer", [True, None, "done", Done])
async def test_an_answer_that_is_none_is_unknown(simulation: Simulation, answer: Any) -> None:
    bank = Bank(answer)
    execution_id = await killed_after_the_charge(simulation, bank)
    await until_waiting(simulation, execution_id)
    reason = (await simulation.client.get_execution(execution_id))["blocked_reason"]
    assert "expected Done(result), NotDone() or Unknown(reason)" in reason


async def test_a_question_that_raises_is_asked_again_then_unknown(simulation: Simulation) -> None:
    bank = Bank(OSError("no line"), OSError("no line"))
    execution_id = await killed_after_the_charge(simulation, bank)
    await until_waiting(simulation, execution_id)
    reason = (await simulation.client.get_execution(execution_id))["blocked_reason"]
    assert "its reconcile raised OSError: no line" in reason
    assert bank.charged == 1


async def test_one_that_is_parked_can_be_cancelled_and_cleans_up(simulation: Simulation) -> None:
    cleaned: list[str] = []
    hangs = [True]
    began = asyncio.Event()

    async def charge() -> None:
        began.set()
        if hangs.pop() if hangs else False:
            await asyncio.Event().wait()

    @workflow(id="reconciling.cancelled")
    async def code(ctx: WorkflowContext) -> None:
        undo = cleaned.append
        await ctx.step.run("book", dict, compensate=lambda: undo("undone"))
        try:
            await ctx.step.run("charge", charge, reconcile=lambda key: Unknown("no line"))
        finally:
            await ctx.step.run("clean", cleaned.append, "cleaned")

    handle = await code.invoke(simulation.client)
    await began.wait()
    simulation.crash()
    await simulation.restart()
    await until_waiting(simulation, handle.id)
    handle = simulation.client.get_handle(handle.id)
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    assert cleaned == ["cleaned", "undone"]


async def test_it_is_asked_before_a_retry_and_behind_the_last_try(simulation: Simulation) -> None:
    bank = Bank(NotDone(), NotDone())
    tries: list[int] = []

    def fails() -> None:
        tries.append(len(bank.asked))
        raise OSError("no line")

    @workflow(id="reconciling.retried")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("charge", fails, max_retries=1, reconcile=bank.check)

    with pytest.raises(ExecutionFailedError, match="failed after 1 retries: no line"):
        await code(simulation.client)
    assert tries == [0, 1]
    assert len(bank.asked) == 2


async def test_a_body_that_took_too_long_may_have_done_it(simulation: Simulation) -> None:
    class Count(WorkflowState):
        n: int = 0

    bank = Bank(Done("charge 1"))

    @workflow(id="reconciling.slow", state_schema=Count)
    async def code(ctx: WorkflowContext) -> str:
        async def slow() -> str:
            ctx.state.n += 1
            bank.charge()
            await asyncio.Event().wait()
            return "never"

        return await ctx.step.run("charge", slow, timeout=5, max_retries=0, reconcile=bank.check)

    handle = await code.invoke(simulation.client)
    assert await handle.result() == "charge 1"
    assert await handle.state() == {"n": 0}


async def test_another_step_ends_before_the_execution_is_parked(simulation: Simulation) -> None:
    go = asyncio.Event()
    bank = Bank(Unknown("no line"), NotDone())

    async def other() -> str:
        await go.wait()
        return "other"

    def fails() -> str:
        if not bank.asked:
            raise OSError("no line")
        return "second"

    @workflow(id="reconciling.beside")
    async def code(ctx: WorkflowContext) -> Any:
        charge = ctx.step.run("charge", fails, base_delay=0, reconcile=bank.check)
        return await asyncio.gather(charge, ctx.step.run("other", other))

    handle = await code.invoke(simulation.client)
    while not bank.asked:
        await asyncio.sleep(0)
        simulation.clock.advance(0.01)
    for _ in range(50):
        await asyncio.sleep(0)
    assert (await simulation.client.get_execution(handle.id))["status"] == "running"
    go.set()
    await until_waiting(simulation, handle.id)
    steps = {s["step_key"]: s["status"] for s in await simulation.client.get_steps(handle.id)}
    assert steps == {"other": "completed", "charge": "running"}
    await simulation.client.retry_execution(handle.id)
    assert await handle.result() == ["second", "other"]


async def test_a_plain_function_asks_too(simulation: Simulation) -> None:
    bank = Bank(NotDone())

    def fails_once() -> str:
        if bank.charge() == "charge 1":
            raise OSError("no line")
        return "done"

    @workflow(id="reconciling.plain")
    def plain(ctx: WorkflowContext) -> Any:
        return ctx.step.run("charge", fails_once, reconcile=bank.check)

    assert await plain(simulation.client) == "done"
    assert len(bank.asked) == 1
