"""Steering a simulation by hand: time that passes, turns of the loop, conditions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from polos.testing import JournalFile, ManualClock, Simulation


async def turns(count: int = 40) -> None:
    """Let everybody run until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)


async def pass_time(simulation: Simulation, seconds: float, step: float = 0.1) -> None:
    """Move a clock that stands still, in steps, and let everybody run after each."""
    clock = simulation.clock
    end = clock.monotonic() + seconds
    await turns()
    while clock.monotonic() < end - 1e-6:
        clock.advance(min(step, end - clock.monotonic()))
        await turns()


async def until(condition: Callable[[], Any], limit: int = 20_000) -> None:
    """Let everybody run until something holds."""
    for _ in range(limit):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to hold")


@contextlib.asynccontextmanager
async def by_hand(**options: Any) -> AsyncIterator[Simulation]:
    """Open a simulation whose clock moves by `pass_time` only; it dies in the end."""
    options.setdefault("clock", ManualClock(auto=False))
    async with Simulation(**options) as simulation:
        try:
            yield simulation
        finally:
            simulation.crash()  # a drain would wait for the clock


async def status_of(simulation: Simulation, execution_id: str) -> str:
    """Read the status of an execution."""
    return (await simulation.client.get_execution(execution_id))["status"]


async def rows_of(simulation: Simulation, execution_id: str) -> list[dict[str, Any]]:
    """Read the journal of an execution, row by row."""
    return (await JournalFile.of(simulation.client, execution_id)).rows


def is_waiting(shown: dict[str, Any]) -> bool:
    """Say whether an execution waits for something that will come."""
    return shown["status"] == "waiting" and shown["blocked_reason"] is None


def is_blocked(shown: dict[str, Any]) -> bool:
    """Say whether an execution is parked with a reason."""
    return shown["status"] == "waiting" and shown["blocked_reason"] is not None


def is_ended(shown: dict[str, Any]) -> bool:
    """Say whether an execution has ended."""
    return shown["completed_at"] is not None


async def until_shown(
    simulation: Simulation, execution_id: str, condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Read an execution until something holds of it; a little time passes before each look."""
    shown: dict[str, Any] = {}
    for _ in range(1_000):
        shown = await simulation.client.get_execution(execution_id)
        if condition(shown):
            return shown
        await pass_time(simulation, 0.5)
    raise AssertionError(f"it never came to hold: {shown}")
