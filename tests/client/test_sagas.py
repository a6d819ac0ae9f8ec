"""Sagas: what was done is undone when the execution does not end well."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    ConflictError,
    Done,
    ExecutionCancelledError,
    ExecutionFailedError,
    NotDone,
    Unknown,
    WorkflowContext,
    WorkflowState,
    WorkflowTimeoutError,
    workflow,
)
from polos.errors import UsageError
from polos.testing import Simulation


class Booking(BaseModel):
    name: str


class World:
    """What was done on the outside."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def book(self, name: str) -> Booking:
        self.log.append(f"book {name}")
        return Booking(name=name)

    def cancel(self, booking: Booking) -> None:
        self.log.append(f"cancel {booking.name}")


@pytest.fixture
def world() -> World:
    return World()


async def keys(simulation: Simulation, execution_id: str) -> list[str]:
    return [s["step_key"] for s in await simulation.client.get_steps(execution_id)]


async def test_a_failure_undoes_what_was_done_the_last_first(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.trip")
    async def trip(ctx: WorkflowContext) -> None:
        for name in ("hotel", "car"):
            await ctx.step.run(name, world.book, name, compensate=world.cancel)
        await ctx.step.run("flight", world.book, "flight")
        raise RuntimeError("no seats")

    handle = await trip.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError) as error:
        await handle.result()
    assert error.value.error == "no seats"
    assert world.log == ["book hotel", "book car", "book flight", "cancel car", "cancel hotel"]
    assert (await keys(simulation, handle.id))[3:] == ["compensate.car", "compensate.hotel"]
    steps = await simulation.client.get_steps(handle.id)
    assert [s["kind"] for s in steps] == ["run"] * 3 + ["compensate"] * 2
    assert (await simulation.client.get_execution(handle.id))["not_compensated"] == []


async def test_a_good_end_undoes_nothing(simulation: Simulation, world: World) -> None:
    @workflow(id="sagas.good")
    async def good(ctx: WorkflowContext) -> str:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        return "fine"

    assert await good(simulation.client) == "fine"
    assert world.log == ["book hotel"]


async def test_a_step_that_failed_is_not_undone(simulation: Simulation, world: World) -> None:
    def full() -> None:
        raise ValueError("full")

    @workflow(id="sagas.failed_step")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.run("car", full, max_retries=0, compensate=world.cancel)

    with pytest.raises(ExecutionFailedError, match="full"):
        await code(simulation.client)
    assert world.log == ["book hotel", "cancel hotel"]


async def test_a_cancellation_undoes_behind_the_cleaning_of_the_code(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.cancelled")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        try:
            await ctx.step.wait_for("nap", days=3)
        finally:
            await ctx.step.run("clean", world.log.append, "clean")

    handle = await code.invoke(simulation.client)
    await until_waiting(simulation, handle.id)
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    assert world.log == ["book hotel", "clean", "cancel hotel"]
    shown = await simulation.client.get_execution(handle.id)
    assert (shown["status"], shown["not_compensated"]) == ("cancelled", [])


async def test_a_cancellation_that_the_code_swallows_undoes_as_well(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.swallowed")
    async def code(ctx: WorkflowContext) -> str:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        try:
            await ctx.step.wait_for("nap", days=3)
        except asyncio.CancelledError:
            return "never mind"
        return "slept"

    handle = await code.invoke(simulation.client)
    await until_waiting(simulation, handle.id)
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    assert world.log == ["book hotel", "cancel hotel"]


async def test_the_end_of_its_time_undoes(simulation: Simulation, world: World) -> None:
    @workflow(id="sagas.late", run_timeout_seconds=60)
    async def late(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.wait_for("nap", days=3)

    with pytest.raises(WorkflowTimeoutError):
        await late(simulation.client)
    assert world.log == ["book hotel", "cancel hotel"]


async def test_a_result_that_cannot_be_recorded_undoes(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.unrecordable")
    async def code(ctx: WorkflowContext) -> Any:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        return object()

    with pytest.raises(ExecutionFailedError, match="cannot record"):
        await code(simulation.client)
    assert world.log == ["book hotel", "cancel hotel"]


async def test_what_cannot_be_undone_is_named_and_stops_nothing(
    simulation: Simulation, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(booking: Booking) -> None:
        world.log.append("try")
        raise OSError("no line")

    @workflow(id="sagas.broken")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.run("car", world.book, "car", compensate=broken, max_retries=1)
        raise RuntimeError("no seats")

    handle = await code.invoke(simulation.client)
    with caplog.at_level(logging.ERROR), pytest.raises(ExecutionFailedError) as error:
        await handle.result()
    assert error.value.error == "no seats; not compensated: 'car'"
    assert world.log == ["book hotel", "book car", "try", "try", "cancel hotel"]
    assert (await simulation.client.get_execution(handle.id))["not_compensated"] == ["car"]
    assert "step 'car' is not compensated" in caplog.text


async def test_retry_undoes_what_is_left_and_no_more(simulation: Simulation, world: World) -> None:
    lines = [False, True]

    def at_times(booking: Booking) -> None:
        if not lines.pop(0):
            raise OSError("no line")
        world.cancel(booking)

    @workflow(id="sagas.retried")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.run("car", world.book, "car", compensate=at_times, max_retries=0)
        raise RuntimeError("no seats")

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError, match="not compensated: 'car'"):
        await handle.result()
    await simulation.client.retry_execution(handle.id)
    with pytest.raises(ExecutionFailedError) as error:
        await handle.result()
    assert error.value.error == "no seats"
    assert world.log == ["book hotel", "book car", "cancel hotel", "cancel car"]
    with pytest.raises(ConflictError, match="was compensated: its steps were undone"):
        await simulation.client.retry_execution(handle.id)


async def test_a_retry_of_the_whole_execution_comes_before_undoing(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.retrying", max_retries=2)
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        world.log.append("fail")
        raise RuntimeError("no seats")

    with pytest.raises(ExecutionFailedError):
        await code(simulation.client)
    assert world.log == ["book hotel", "fail", "fail", "fail", "cancel hotel"]


async def test_branches_are_undone_by_the_order_of_their_records(
    simulation: Simulation, world: World
) -> None:
    async def book(name: str, turns: int) -> Booking:
        for _ in range(turns):
            await asyncio.sleep(0)
        return world.book(name)

    @workflow(id="sagas.branches")
    async def code(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            *(
                ctx.step.run(name, book, name, turns, compensate=world.cancel)
                for name, turns in (("slow", 60), ("quick", 1))
            )
        )
        raise RuntimeError("no seats")

    with pytest.raises(ExecutionFailedError):
        await code(simulation.client)
    assert world.log == ["book quick", "book slow", "cancel slow", "cancel quick"]


async def test_a_body_that_was_running_is_named_for_its_outcome_is_unknown(
    simulation: Simulation, world: World
) -> None:
    async def hang() -> None:
        world.log.append("begin")
        await asyncio.Event().wait()

    async def fail() -> None:
        raise ValueError("full")

    @workflow(id="sagas.running")
    async def code(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.step.run("car", hang, compensate=world.cancel),
            ctx.step.run("hotel", fail, max_retries=0),
        )

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError, match="not compensated: 'car'"):
        await handle.result()
    assert world.log == ["begin"]


@pytest.mark.parametrize("took_place", [True, False, None])
async def test_of_a_body_that_was_running_its_reconciliation_is_asked(
    simulation: Simulation, world: World, took_place: bool | None
) -> None:
    async def hang() -> Booking:
        await asyncio.Event().wait()
        return Booking(name="car")

    async def fail() -> None:
        raise ValueError("full")

    def check(key: str) -> Done | NotDone | Unknown:
        if took_place is None:
            return Unknown("no line")
        return Done(Booking(name="car")) if took_place else NotDone()

    @workflow(id="sagas.reconciled")
    async def code(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.step.run("car", hang, compensate=world.cancel, reconcile=check),
            ctx.step.run("hotel", fail, max_retries=0),
        )

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    assert world.log == (["cancel car"] if took_place else [])
    shown = await simulation.client.get_execution(handle.id)
    assert shown["not_compensated"] == (["car"] if took_place is None else [])


async def test_a_deadline_that_passes_names_what_is_left(
    simulation: Simulation, world: World
) -> None:
    async def for_ever(booking: Booking) -> None:
        await asyncio.Event().wait()

    @workflow(id="sagas.for_ever")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.run("car", world.book, "car", compensate=for_ever)
        await ctx.step.wait_for("nap", days=3)

    handle = await code.invoke(simulation.client)
    await until_waiting(simulation, handle.id)
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    shown = await simulation.client.get_execution(handle.id)
    assert (shown["status"], shown["not_compensated"]) == ("cancelled", ["hotel", "car"])
    assert shown["error"] == "Execution cancelled; not compensated: 'hotel', 'car'"


async def test_a_cancellation_does_not_interrupt_the_undoing(
    simulation: Simulation, world: World
) -> None:
    async def cancel(booking: Booking) -> None:
        await simulation.client.cancel_execution(execution_id[0])
        for _ in range(50):
            await asyncio.sleep(0)
        world.cancel(booking)

    execution_id: list[str] = []

    @workflow(id="sagas.uninterrupted")
    async def code(ctx: WorkflowContext) -> None:
        execution_id.append(ctx.execution_id)
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.run("car", world.book, "car", compensate=cancel)
        raise RuntimeError("no seats")

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    assert world.log == ["book hotel", "book car", "cancel car", "cancel hotel"]


async def test_by_hand_and_only_once(simulation: Simulation, world: World) -> None:
    @workflow(id="sagas.by_hand")
    async def code(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
            raise ValueError("no seats")
        except ValueError:
            assert await ctx.step.compensate() == []
        await ctx.step.run("car", world.book, "car", compensate=world.cancel)
        raise RuntimeError("no car either")

    with pytest.raises(ExecutionFailedError):
        await code(simulation.client)
    assert world.log == ["book hotel", "cancel hotel", "book car", "cancel car"]


async def test_a_plain_function_is_undone_too(simulation: Simulation, world: World) -> None:
    @workflow(id="sagas.plain")
    def plain(ctx: WorkflowContext) -> None:
        steps: Any = ctx.step
        steps.run("hotel", world.book, "hotel", compensate=world.cancel)
        steps.run("hotel", world.book, "other", compensate=world.cancel)
        raise RuntimeError("no seats")

    handle = await plain.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    assert world.log == ["book hotel", "book other", "cancel other", "cancel hotel"]
    assert (await keys(simulation, handle.id))[2:] == ["compensate.hotel#2", "compensate.hotel"]


@pytest.mark.parametrize(
    ("undo", "expected"),
    [
        (lambda: ["nothing"], "nothing"),
        (lambda booking: booking.name, "hotel"),
        (lambda bound="of the loop": bound, "of the loop"),
        (lambda booking, bound="the": f"{bound} {booking.name}", "the hotel"),
        (lambda *given: given[0].name, "hotel"),
        (functools.partial(lambda prefix, booking: f"{prefix} {booking.name}", "the"), "the hotel"),
    ],
)
async def test_the_undoing_gets_the_result_if_it_asks_for_it(
    simulation: Simulation, world: World, undo: Callable[..., Any], expected: str
) -> None:
    @workflow(id="sagas.arity")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=undo)
        raise RuntimeError("no seats")

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    step = (await simulation.client.get_steps(handle.id))[-1]
    assert step["output"] in (expected, [expected])


async def test_the_undoing_changes_the_state_as_a_body_does(simulation: Simulation) -> None:
    class Count(WorkflowState):
        booked: int = 0

    @workflow(id="sagas.state", state_schema=Count)
    async def code(ctx: WorkflowContext) -> None:
        async def book() -> None:
            ctx.state.booked += 1

        async def undo() -> None:
            ctx.state.booked -= 1

        for n in range(3):
            await ctx.step.run(f"book{n}", book, compensate=undo)
        raise RuntimeError("no seats")

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    assert await handle.state() == {"booked": 0}


@pytest.mark.parametrize("name", ["compensate", "reconcile"])
async def test_what_is_no_function_is_refused(simulation: Simulation, name: str) -> None:
    options: dict[str, Any] = {name: "undo"}

    @workflow(id="sagas.refused")
    async def code(ctx: WorkflowContext) -> None:
        with pytest.raises(UsageError, match=f"{name} is a function, not 'undo'"):
            await ctx.step.run("s", dict, **options)

    await code(simulation.client)


async def test_an_undoing_with_two_arguments_is_refused_before_the_step(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.two")
    async def code(ctx: WorkflowContext) -> None:
        with pytest.raises(UsageError, match="bind the others with functools"):
            await ctx.step.run("s", world.book, "s", compensate=lambda a, b: None)

    await code(simulation.client)
    assert world.log == []


async def until_waiting(simulation: Simulation, execution_id: str) -> None:
    while (await simulation.client.get_execution(execution_id))["status"] != "waiting":
        await asyncio.sleep(0)
        simulation.clock.advance(0.01)  # it moves by itself only while nobody looks


async def test_a_body_that_kills_its_worker_is_named_also_by_who_ends_it_without_its_code(
    simulation: Simulation,
) -> None:
    begun = asyncio.Event()

    async def deadly() -> None:
        begun.set()
        simulation.crash()
        await asyncio.Event().wait()

    @workflow(id="sagas.deadly")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", deadly, compensate=lambda: None)

    handle = await code.invoke(simulation.client)
    for _ in range(20):
        await begun.wait()
        begun.clear()
        await simulation.restart()
        shown = await simulation.client.get_execution(handle.id)
        if shown["blocked_reason"]:
            break
    await simulation.client.cancel_execution(handle.id)
    shown = await simulation.client.get_execution(handle.id)
    assert (shown["status"], shown["not_compensated"]) == ("cancelled", ["hotel"])


async def test_the_time_of_the_step_holds_for_each_try_of_its_undoing(
    simulation: Simulation, world: World
) -> None:
    async def hang(booking: Booking) -> None:
        world.log.append(f"hang {booking.name}")
        await asyncio.Event().wait()

    @workflow(id="sagas.slow_undo")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.run("car", world.book, "car", timeout=5, max_retries=1, compensate=hang)
        raise ValueError("no seats")

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError, match="no seats; not compensated: 'car'"):
        await handle.result()
    assert world.log == ["book hotel", "book car", "hang car", "hang car", "cancel hotel"]


async def test_a_reset_names_what_was_undone_among_the_effects(
    simulation: Simulation, world: World
) -> None:
    @workflow(id="sagas.reset")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("hotel", world.book, "hotel", compensate=world.cancel)
        await ctx.step.uuid("mark")
        raise ValueError("no seats")

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    # The journal says that the room is booked, and it is not any more.
    planned = await handle.reset(to_step="hotel", dry_run=True)
    assert planned["steps"] == ["mark", "compensate.hotel"]
    assert [each["step_key"] for each in planned["effects"]] == ["compensate.hotel"]
