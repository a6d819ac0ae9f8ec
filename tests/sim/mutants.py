"""Broken engines that the tests must catch: `python -m tests.sim.mutants [NAME ...]`.

Each mutant replaces attributes of the engine for the time of a `with` block, and names the tests
that must fail under it. Without a name all are tried, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from polos.core import streams
from polos.store.sqlite import batch as batches
from polos.worker import bodies, patches
from polos.worker.pump import Pump
from polos.worker.tracking import Tracker
from polos.worker.writer import Writer
from polos.workflow.steps import Steps

ROOT = Path(__file__).resolve().parents[2]
FAILED = int(pytest.ExitCode.TESTS_FAILED)

Patches = list[tuple[Any, str, Any]]


@dataclass(frozen=True)
class Mutant:
    """One way to break the engine."""

    what: str
    patches: Callable[[], Patches]
    tests: tuple[str, ...]
    """Node ids below tests/; at least one of them must fail."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Break the engine for a while."""
        before = [(place, name, vars(place)[name]) for place, name, _ in self.patches()]
        try:
            for place, name, value in self.patches():
                setattr(place, name, value)
            yield
        finally:
            for place, name, value in before:
                setattr(place, name, value)


def _no_fencing() -> Patches:
    def everybody(connection: Any, changes: Any) -> set[int]:
        return set(range(len(list(changes))))

    # Lone rows go the way of all: their statement has its own fence.
    return [(batches, "_fence", everybody), (batches, "is_lone_row", lambda change: False)]


def _record_before_effect() -> Patches:
    run = Steps.run

    async def recorded_first(
        self: Steps, step_key: str, func: Any, *args: Any, **kwargs: Any
    ) -> Any:
        fresh: list[bool] = []

        async def claim() -> None:
            fresh.append(True)

        await run(self, step_key, claim)
        if not fresh:
            return None
        options = {"max_retries", "base_delay", "max_delay", "timeout", "jitter"}
        value = func(*args, **{k: v for k, v in kwargs.items() if k not in options})
        return await value if hasattr(value, "__await__") else value

    return [(Steps, "run", recorded_first)]


def _falsy_dropped() -> Patches:
    result = bodies.result

    def dropped(*args: Any) -> Any:
        return result(*args) or None

    return [(bodies, "result", dropped)]


def _lost_wake_up() -> Patches:
    statement = (
        "UPDATE execution SET status = 'waiting', started_at = coalesce(started_at, ?2), "
        "wake_at = ?1 WHERE root_id = ?3 AND id = ?4 AND ?5 IS NOT NULL RETURNING status"
    )
    return [(batches, "_WAITING", statement)]


def _change_applied_twice() -> Patches:
    hand_over = Tracker.hand_over

    def twice(self: Tracker, *args: Any) -> None:
        hand_over(self, *args)
        hand_over(self, *args)

    return [(Tracker, "hand_over", twice)]


def _batch_reversed() -> Patches:
    deliver = Pump.deliver

    def reversed_(self: Pump, turn: Any, *args: Any) -> None:
        deliver(self, turn[::-1], *args)

    return [(Pump, "deliver", reversed_)]


def _riding_row_lost() -> Patches:
    return [(Writer, "has_riders", lambda self: False)]


def _patched_by_replaying() -> Patches:
    def is_first(self: Any) -> bool:
        return not self._attempt.pump.replaying

    return [(patches.Patches, "is_first", is_first)]


def _chunks_again() -> Patches:
    def admit(cursor: str | None, events: Any) -> Any:
        return list(events), "[0,0,{}]"

    return [(streams, "admit", admit)]


def _no_reset() -> Patches:
    real = streams.admit

    def admit(cursor: str | None, events: Any) -> Any:
        return real(cursor, [event for event in events if event.type != streams.RESET])

    return [(streams, "admit", admit)]


MUTANTS: dict[str, Mutant] = {
    "no-fencing": Mutant(
        "the writes of a worker that lost its claim are taken",
        _no_fencing,
        ("sim/test_zombies.py",),
    ),
    "record-before-effect": Mutant(
        "a step is recorded before its body ran",
        _record_before_effect,
        ("sim/test_crash_sweep.py::test_a_death_at_any_commit_changes_nothing[sequential]",),
    ),
    "falsy-result-dropped": Mutant(
        "a falsy result comes back as None",
        _falsy_dropped,
        ("semantics/test_steps.py::test_2_2_first_run_sees_what_a_replay_would_see",),
    ),
    "lost-wake-up": Mutant(
        "what came just before an execution waits wakes nobody",
        _lost_wake_up,
        (
            "sim/test_interleaving.py::"
            "test_a_childs_end_that_comes_just_before_the_parent_waits_is_seen",
        ),
    ),
    "state-restored-twice": Mutant(
        "the change of a step's body is applied twice",
        _change_applied_twice,
        ("semantics/test_state.py::test_state_2_branches_lose_no_increment_and_count_none_twice",),
    ),
    "batch-order-reversed": Mutant(
        "rows that became durable together are handed over in reverse",
        _batch_reversed,
        (
            "replay/test_journal_rules.py::"
            "test_rule_6_rows_of_one_commit_are_handed_over_in_recorded_order",
        ),
    ),
    "patched-by-replaying": Mutant(
        "a change is decided by whether the attempt replays",
        _patched_by_replaying,
        ("sim/test_crash_sweep.py::test_a_death_at_any_commit_changes_nothing[patched]",),
    ),
    "chunks-again": Mutant(
        "a commit does not tell which chunks an earlier attempt has brought",
        _chunks_again,
        ("sim/test_crash_sweep.py::test_a_death_at_any_commit_changes_nothing[streaming]",),
    ),
    "no-reset": Mutant(
        "a body that starts again does not say so to readers",
        _no_reset,
        ("sim/test_crash_sweep.py::test_a_death_at_any_commit_changes_nothing[streaming]",),
    ),
    "riding-row-lost": Mutant(
        "a body begins before the rows that ride ahead of it are durable",
        _riding_row_lost,
        (
            "replay/test_journal_rules.py::"
            "test_rule_4_no_body_begins_before_the_rows_that_ride_ahead_of_it_are_durable",
        ),
    ),
}


def run_tests(name: str) -> int:
    """Run a mutant's tests under it, in this process; returns pytest's exit code."""
    mutant = MUTANTS[name]
    tests = [str(ROOT / "tests" / test) for test in mutant.tests]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore", "--no-header", "--tb=line"]
    with mutant.applied():
        return int(pytest.main([*options, *tests]))


def try_one(name: str) -> subprocess.CompletedProcess[str]:
    """Run a mutant's tests in a process of its own; exit code 1 means that it was caught."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sim.mutants", "--here", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def main(arguments: list[str]) -> int:
    """List the mutants and try them; 1 if one survives."""
    if arguments[:1] == ["--here"]:
        return run_tests(arguments[1])
    survivors = 0
    for name in arguments or MUTANTS:
        code = try_one(name).returncode
        caught = code == FAILED
        survivors += not caught
        verdict = "caught" if caught else f"SURVIVES (pytest exit code {code})"
        print(f"{name:24} {verdict:10} {MUTANTS[name].what}")
    return min(survivors, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
