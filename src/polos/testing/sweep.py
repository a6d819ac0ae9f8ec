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
from polos.store.sqlite.committer import MemoryDatabase
from polos.testing.simulation import Crashed, Database, Simulation
from polos.workflow.registry import Registry

Start = Callable[[Any], Awaitable[ExecutionHandle]]
Plan = tuple[tuple[int, str], ...]
LIMIT_SECONDS = 20.0
_WHERE = ("before", "after")
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
    """What the bodies did, over all lives."""
    before_death: int = 0
    """How many of the effects were made before the (last) death."""
    recorded: set[str] = field(default_factory=set[str])
    """Keys of the steps, of all executions, that were recorded when the process died."""

    @property
    def repeated(self) -> list[Any]:
        """Effects of steps that had been recorded, made again: must be none.

        Only effects that are step keys can be told.
        """
        return [e for e in self.effects[self.before_death :] if e in self.recorded]


@dataclass
class SweepReport:
    """What a sweep saw."""

    undisturbed: Outcome
    commits: int
    outcomes: dict[Plan, Outcome] = field(default_factory=dict[Plan, Outcome])
    """By the deaths: each is (number of the commit in that life, "before" or "after")."""
    differences: list[str] = field(default_factory=list[str])


async def observe(simulation: Simulation, handle: ExecutionHandle) -> Outcome:
    """Wait for the end of an execution and read what is left of it."""
    await _ended(handle)
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
    entries = await simulation.node.engine.store.states(record.root_id, record.id)
    history: list[tuple[str | None, dict[str, Any]]] = []
    fields: delta.Fields = {}
    for entry in entries:
        fields = delta.apply(fields, entry.body)
        history.append((entry.step_key, simulation.node.plain(fields)))
    return Outcome(shown["status"], shown["result"], shown["error"], shown["state"], steps, history)


async def _ended(handle: ExecutionHandle) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        with contextlib.suppress(PolosError):
            await handle.result()


async def crash_sweep(
    start: Start,
    *,
    effects: list[Any] | None = None,
    registry: Registry | None = None,
    compare_history: bool = True,
    normalize: Callable[[Outcome], None] | None = None,
    on_open: Callable[[Simulation], None] | None = None,
    deaths: int = 1,
    fresh: Callable[[], Awaitable[Database]] | None = None,
    **options: Any,
) -> SweepReport:
    """Run `start(client)` undisturbed, then once for every commit, dying before and after it.

    `effects` is a list that step bodies append to: it is cleared before each run and kept in the
    outcome. Each resumed execution must end with the same status, result, error, state, steps and
    history of state, make each effect of the undisturbed run at least once, and none again whose
    step was recorded (which can be told of effects that are step keys); what differs is listed in
    the report's `differences`.

    `normalize(outcome)` may change an outcome before it is compared, where branches make the order
    of things differ. `on_open(simulation)` is called whenever the database is opened, at the
    beginning and after each death. With `deaths=2` each resumed run dies again, at each of its own
    commits. `fresh()` returns an empty database for a run (default: one in memory).
    """
    sweep = _Sweep(start, effects, registry, on_open, fresh, options)
    undisturbed, commits = await sweep.run(())
    assert undisturbed is not None
    if normalize is not None:
        normalize(undisturbed)
    report = SweepReport(undisturbed, commits[0])
    plans: list[Plan] = [((n, where),) for n in range(1, commits[0] + 1) for where in _WHERE]
    while plans:
        plan = plans.pop(0)
        outcome, commits = await sweep.run(plan)
        if outcome is None:
            continue  # died before the start was durable: there is nothing to resume
        if normalize is not None:
            normalize(outcome)
        report.outcomes[plan] = outcome
        dying = " and ".join(f"{where} commit {number}" for number, where in plan)
        report.differences += [
            f"dying {dying}: {text}"
            for text in _differences(undisturbed, outcome, history=compare_history)
        ]
        if len(plan) < deaths:
            again = range(1, commits[-1] + 1)
            plans += [(*plan, (number, where)) for number in again for where in _WHERE]
    return report


class _Sweep:
    """Runs one workflow again and again, dying as planned."""

    def __init__(
        self,
        start: Start,
        effects: list[Any] | None,
        registry: Registry | None,
        on_open: Callable[[Simulation], None] | None,
        fresh: Callable[[], Awaitable[Database]] | None,
        options: dict[str, Any],
    ) -> None:
        self._start = start
        self._effects = effects if effects is not None else []
        self._registry = registry
        self._on_open = on_open
        self._fresh = fresh
        self._options = options

    async def run(self, plan: Plan) -> tuple[Outcome | None, list[int]]:
        """Return the outcome, and how many commits each life made."""
        effects = self._effects
        effects.clear()
        database = MemoryDatabase() if self._fresh is None else await self._fresh()
        lives = [_Life(*death) for death in plan] + [_Life(None, "")]
        handle: ExecutionHandle | None = None
        before, recorded = 0, set[str]()
        simulation = Simulation(database=database, registry=self._registry, **self._options)
        async with simulation:
            for number, life in enumerate(lives):
                if number:
                    await simulation.restart()
                # The worker's own entry is not part of the execution.
                simulation.on_transaction(life.gate)
                if self._on_open is not None:
                    self._on_open(simulation)
                task = asyncio.ensure_future(self._live(simulation, first=number == 0))
                if life.crash_at is None:
                    handle = await task
                    break
                await life.end(task)
                simulation.crash()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                before, recorded = len(effects), await database.recorded()
            simulation.on_transaction(None)
            if handle is None:
                return None, [life.commits for life in lives]
            outcome = await observe(simulation, handle)
            for each in await simulation.client.list_executions(limit=1000):
                # A child may clean up for longer than the execution that it belongs to.
                await _ended(simulation.client.get_handle(each["id"]))
        outcome.effects, outcome.before_death, outcome.recorded = list(effects), before, recorded
        return outcome, [life.commits for life in lives]

    async def _live(self, simulation: Simulation, *, first: bool) -> ExecutionHandle | None:
        """Start the execution, or find it again, and wait for its end."""
        client = simulation.client
        if first:
            handle = await self._start(client)
        else:
            found = await client.list_executions(limit=1000)
            roots = [e["id"] for e in found if e["parent_execution_id"] is None]
            if not roots:
                return None
            handle = client.get_handle(roots[-1])
        await _ended(handle)
        return handle


class _Life:
    """One process: its commits are counted, and it may die at one of them."""

    def __init__(self, crash_at: int | None, where: str) -> None:
        self.crash_at = crash_at
        self.commits = 0
        self._where = where
        self._crashed = asyncio.Event()

    def gate(self, moment: str) -> None:
        """Count, and die (see `Simulation.on_transaction`)."""
        if moment == "begin":
            self.commits += 1
        if self.commits == self.crash_at and moment == self._where:
            self._crashed.set()
            raise Crashed

    async def end(self, task: asyncio.Future[Any]) -> None:
        """Return when the process died, or had nothing more to do."""
        crashed = asyncio.ensure_future(self._crashed.wait())
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.wait({crashed, task}, return_when=asyncio.FIRST_COMPLETED)
        crashed.cancel()


def _differences(expected: Outcome, got: Outcome, *, history: bool) -> list[str]:
    names = ["status", "result", "error", "state", "steps"]
    if history:
        names.append("history")
    found = [
        f"{name} is {getattr(got, name)!r}, undisturbed {getattr(expected, name)!r}"
        for name in names
        if getattr(got, name) != getattr(expected, name)
    ]
    if missing := [e for e in expected.effects if e not in got.effects]:
        found.append(f"effects {missing!r} are missing")
    if got.repeated:
        found.append(f"effects {got.repeated!r} of recorded steps were made again")
    return found


__all__ = ["Outcome", "Status", "SweepReport", "crash_sweep", "observe"]
