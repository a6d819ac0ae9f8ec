"""Die before and after every commit of a workflow, resume, and compare with an undisturbed run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from polos.client.handle import ExecutionHandle
from polos.core import delta
from polos.core.model import Status
from polos.errors import PolosError
from polos.store.sqlite.store import MemoryDatabase
from polos.testing.simulation import Crashed, Simulation
from polos.workflow.registry import Registry

Start = Callable[[Any], Awaitable[ExecutionHandle]]
LIMIT_SECONDS = 20.0
_PERSONAL = {"uuid", "random", "now", "invoke", "batch_invoke"}
"""Steps whose output differs from one execution to the next."""


@dataclass
class Outcome:
    """What is left of an execution when it has ended."""

    status: str
    result: Any
    error: str | None
    state: dict[str, Any] | None
    steps: dict[str, Any]
    """(status, output or error) by step key."""
    history: list[tuple[str | None, dict[str, Any]]]
    """(step key, whole state) for each recorded change."""
    effects: list[Any] = field(default_factory=list[Any])


@dataclass
class SweepReport:
    """What a sweep saw."""

    undisturbed: Outcome
    commits: int
    outcomes: dict[tuple[int, str], Outcome] = field(default_factory=dict[tuple[int, str], Outcome])
    """By (number of the commit, "before" or "after")."""
    differences: list[str] = field(default_factory=list[str])


async def observe(simulation: Simulation, handle: ExecutionHandle) -> Outcome:
    """Wait for the end of an execution and read what is left of it."""
    async with asyncio.timeout(LIMIT_SECONDS):
        with contextlib.suppress(PolosError):
            await handle.result()
    client = simulation.client
    shown = await client.get_execution(handle.id)
    steps = {
        step["step_key"]: (
            step["status"],
            step["kind"] if step["kind"] in _PERSONAL else step["error"] or step["output"],
        )
        for step in await client.get_steps(handle.id)
    }
    record = await simulation.node.engine.require(handle.id)
    entries = await simulation.store.states(record.root_id, record.id)
    history: list[tuple[str | None, dict[str, Any]]] = []
    fields: delta.Fields = {}
    for entry in entries:
        fields = delta.apply(fields, entry.body)
        history.append((entry.step_key, simulation.node.plain(fields)))
    return Outcome(shown["status"], shown["result"], shown["error"], shown["state"], steps, history)


async def crash_sweep(
    start: Start,
    *,
    effects: list[Any] | None = None,
    registry: Registry | None = None,
    compare_history: bool = True,
    **options: Any,
) -> SweepReport:
    """Run `start(client)` undisturbed, then once for every commit, dying before and after it.

    `effects` is a list that step bodies append to: it is cleared before each run and kept in the
    outcome. Each resumed execution must end with the same status, result, error, state, steps and
    history of state; what differs is listed in the report's `differences`.
    """
    made = effects if effects is not None else []

    async def once(crash_at: int | None, where: str) -> tuple[Outcome | None, int]:
        made.clear()
        return await _run(start, made, crash_at, where, registry, options)

    undisturbed, commits = await once(None, "")
    assert undisturbed is not None
    report = SweepReport(undisturbed, commits)
    for number in range(1, commits + 1):
        for where in ("before", "after"):
            outcome, _ = await once(number, where)
            if outcome is None:
                continue  # died before the start was durable: there is nothing to resume
            report.outcomes[number, where] = outcome
            report.differences += [
                f"dying {where} commit {number}: {text}"
                for text in _differences(undisturbed, outcome, history=compare_history)
            ]
    return report


async def _run(
    start: Start,
    made: list[Any],
    crash_at: int | None,
    where: str,
    registry: Registry | None,
    options: dict[str, Any],
) -> tuple[Outcome | None, int]:
    commits = 0
    crashed = asyncio.Event()
    database = MemoryDatabase()
    simulation = Simulation(database=database, registry=registry, **options)

    def gate(moment: str) -> None:
        nonlocal commits
        if moment == "begin":
            commits += 1
        if commits == crash_at and moment == where:
            crashed.set()
            raise Crashed

    async with simulation:
        # The worker's own entry is not part of the execution.
        simulation.on_transaction(gate)
        starting = asyncio.ensure_future(start(simulation.client))
        if crash_at is None:
            handle = await starting
            outcome = await observe(simulation, handle)
            made_now = list(made)
            outcome.effects = made_now
            return outcome, commits
        async with asyncio.timeout(LIMIT_SECONDS):
            await crashed.wait()
        simulation.crash()
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await simulation.restart()
        found = await simulation.client.list_executions(limit=1000)
        roots = [e for e in found if e["parent_execution_id"] is None]
        if not roots:
            return None, commits
        outcome = await observe(simulation, simulation.client.get_handle(roots[-1]["id"]))
        outcome.effects = list(made)
        return outcome, commits


def _differences(expected: Outcome, got: Outcome, *, history: bool) -> list[str]:
    names = ["status", "result", "error", "state", "steps"]
    if history:
        names.append("history")
    return [
        f"{name} is {getattr(got, name)!r}, undisturbed {getattr(expected, name)!r}"
        for name in names
        if getattr(got, name) != getattr(expected, name)
    ]


__all__ = ["Outcome", "Status", "SweepReport", "crash_sweep", "observe"]
