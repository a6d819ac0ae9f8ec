"""The execution of JOURNAL.md, "One execution"; `python -m tests.replay.trip FILE` records it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from polos import (
    AlreadyResumedError,
    PolosClient,
    StepExecutionError,
    Workflow,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.testing import JournalFile, Simulation


class Trip(WorkflowState):
    """The state of a trip."""

    legs: int = 0
    notes: list[str] = []
    started: float = 0.0


def define(ran: list[str], on_code: Callable[[str], None] = lambda place: None) -> Workflow[Any]:
    """Define the workflow `trip`; bodies note themselves in `ran`, code calls `on_code(place)`."""

    @workflow(state_schema=Trip)
    async def trip(ctx: WorkflowContext, input: dict[str, Any]) -> bool:
        async def book() -> str:
            ran.append("book")
            ctx.state.notes.append("booked")
            return "booked"

        async def car() -> str:
            ran.append("car")
            for _ in range(50):  # the hotel ends first
                await asyncio.sleep(0)
            return "car"

        async def hotel() -> str:
            ran.append("hotel")
            return "hotel"

        async def fails() -> None:
            ran.append("tour")
            for _ in range(50):  # as a request would: what was concurrent has settled
                await asyncio.sleep(0)
            raise ValueError("sold out")

        ctx.state.started = time.time()
        await ctx.step.run("book", book)
        ctx.state.legs += 1
        on_code("c")
        await asyncio.gather(ctx.step.run("car", car), ctx.step.run("hotel", hotel))
        try:
            await ctx.step.run("tour", fails, max_retries=0)
        except StepExecutionError as error:
            ctx.state.notes.append("no tour")
            on_code(str(error))
        answer = await ctx.step.suspend("ok", {"ask": "go?"})
        return answer["data"]["go"]

    return trip


async def answer(client: PolosClient, execution_id: str) -> None:
    """Say yes as soon as somebody asks, unless that was done before."""
    while not await client.list_suspensions(execution_id=execution_id):
        if (await client.get_execution(execution_id))["status"] == "completed":
            return
        await asyncio.sleep(0)
    with contextlib.suppress(AlreadyResumedError):
        await client.resume(None, execution_id, "ok", {"go": True})


async def record(path: str) -> None:
    """Write the journal of one undisturbed execution."""
    trip = define([])
    async with Simulation() as simulation:
        handle = await trip.invoke(simulation.client, {})
        await answer(simulation.client, handle.id)
        await handle.result()
        (await JournalFile.of(simulation.client, handle.id)).write(path)


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
