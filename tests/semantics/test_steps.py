"""DESIGN §2, items 1 to 4 and 8: what a step promises; each test is named after its item."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    AttemptSealed,
    NonDeterminismError,
    StepExecutionError,
    StepTimeoutError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.errors import ExecutionFailedError, UsageError
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import JournalFile, Simulation, replay
from tests.sim.helpers import by_hand, pass_time, rows_of, status_of, turns, until


class Point(BaseModel):
    x: int = 0


@dataclass
class Pair:
    left: int
    right: Decimal


class Color(Enum):
    RED = "red"


class Tally(WorkflowState):
    count: int = 0


# -- 1: executed once ---------------------------------------------------------------------------


async def test_2_1_a_recorded_step_is_never_executed_again() -> None:
    ran: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def body(key: str) -> str:
            ran.append(key)
            if len(ran) == 2:
                await asyncio.Event().wait()
            return key

        return await ctx.step.run("a", body, "a") + await ctx.step.run("b", body, "b")

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await until(lambda: ran == ["a", "b"])
        simulation.crash()
        await simulation.restart()
        assert await simulation.client.get_handle(handle.id).result() == "ab"
    assert ran == ["a", "b", "b"]


async def test_2_1_attempts_are_counted_and_the_idempotency_key_stays() -> None:
    keys: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def body() -> str:
            keys.append(ctx.step.idempotency_key())
            if len(keys) < 3:
                await asyncio.Event().wait()
            return "done"

        return await ctx.step.run("a", body)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        for life in (1, 2):
            await until(lambda life=life: len(keys) == life)
            simulation.crash()
            await simulation.restart()
        assert await simulation.client.get_handle(handle.id).result() == "done"
        steps = await simulation.client.get_steps(handle.id)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert [s["attempts"] for s in steps] == [3]


async def test_2_1_the_idempotency_key_of_a_repeated_step_is_its_own() -> None:
    keys: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> list[str]:
        async def body() -> None:
            keys.append(ctx.step.idempotency_key("a"))

        await ctx.step.run("a", body)
        await ctx.step.run("a", body)
        return [ctx.step.idempotency_key("a"), ctx.step.idempotency_key("a#2")]

    async with Simulation() as simulation:
        assert await code(simulation.client) == keys
    assert len(set(keys)) == 2


# -- 2: the first run sees what a replay would see ------------------------------------------------


async def test_2_2_first_run_sees_what_a_replay_would_see() -> None:
    ran: list[int] = []
    seen: list[list[Any]] = []
    values: list[Any] = [
        None,
        False,
        0,
        0.0,
        "",
        [],
        {},
        (),
        Point(x=1),
        Pair(1, Decimal("0.10")),
        Color.RED,
        {"at": datetime(2024, 1, 1, tzinfo=UTC)},
        {1, 2},
        b"\x00\xff",
        [Point(), (1, 2)],
    ]

    @workflow
    async def code(ctx: WorkflowContext) -> int:
        async def give(n: int) -> Any:
            ran.append(n)
            return values[n]

        got = [await ctx.step.run("v", give, n) for n in range(len(values))]
        seen.append([(type(value), value) for value in got])
        return len(got)

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.result()
        journal = await JournalFile.of(simulation.client, handle.id)
    again = await replay(journal)
    assert again.status == "completed"
    assert again.new_steps == []
    assert ran == list(range(len(values)))
    assert seen[0] == seen[1]
    assert [value for _, value in seen[0]] == values


async def test_2_2_results_are_not_the_objects_of_the_body() -> None:
    kept: list[dict[str, Any]] = []

    @workflow
    async def code(ctx: WorkflowContext) -> dict[str, Any]:
        async def body() -> dict[str, Any]:
            kept.append({"list": [1], "tuple": (1,)})
            return kept[0]

        got = await ctx.step.run("a", body)
        kept[0]["list"].append(2)
        return got

    async with Simulation() as simulation:
        assert (await code(simulation.client))["list"] == [1]


async def test_2_2_a_failure_raises_the_same_type_with_the_same_message() -> None:
    seen: list[list[Any]] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def fail() -> None:
            raise KeyError("missing")

        async def hang() -> None:
            await asyncio.Event().wait()

        async def unrecordable() -> Any:
            return {"a": object()}

        errors: list[Any] = []
        for call in (
            lambda: ctx.step.run("fail", fail, max_retries=1),
            lambda: ctx.step.run("hang", hang, max_retries=0, timeout=1),
            lambda: ctx.step.run("odd", unrecordable),
            lambda: ctx.step.wait_for("wait", 0),
        ):
            try:
                await call()
            except StepExecutionError as error:
                errors.append((type(error), str(error), error.step_key, error.error_type))
        seen.append(errors)

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.result()
        journal = await JournalFile.of(simulation.client, handle.id)
    assert (await replay(journal)).status == "completed"
    live, replayed = seen
    assert live == replayed
    assert [kind for kind, *_ in live] == [
        StepExecutionError,
        StepTimeoutError,
        StepExecutionError,
        StepExecutionError,
    ]
    assert live[0][1:] == (
        "Step execution failed after 1 retries: 'missing'",
        "fail",
        "KeyError",
    )
    assert "a" in live[2][1]


async def test_2_2_an_error_that_leaves_the_code_fails_the_execution() -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def fail() -> None:
            raise ValueError("no")

        await ctx.step.run("fail", fail, max_retries=0)

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        text = "Workflow execution failed: Step execution failed after 0 retries: no"
        with pytest.raises(ExecutionFailedError, match=text):
            await handle.result()
        with pytest.raises(ExecutionFailedError, match=text):
            await simulation.client.get_handle(handle.id).result()


# -- 3: found by key ------------------------------------------------------------------------------


async def test_2_3_steps_are_found_by_key_and_numbered_when_repeated() -> None:
    extra: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> list[int]:
        async def give(n: int) -> int:
            return n

        got = [await ctx.step.run("s", give, n) for n in range(3)]
        for key in extra:  # new code between old steps: found by key, the old ones are not run
            await ctx.step.run(key, give, 7)
        return [*got, await ctx.step.run("t", give, 9)]

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == [0, 1, 2, 9]
        journal = await JournalFile.of(simulation.client, handle.id)
    assert [row["key"] for row in journal.rows] == ["s", "s#2", "s#3", "t"]
    extra.append("new")
    again = await replay(journal)
    assert again.result == [0, 1, 2, 9]
    assert again.new_steps == ["new"]


@pytest.mark.parametrize("key", ["a#1", "a#23", "#2", "", 5])
async def test_2_3_keys_that_would_be_taken_for_numbered_ones_are_refused(key: Any) -> None:
    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def body() -> None:
            pass

        with pytest.raises(UsageError):
            await ctx.step.run(key, body)

    async with Simulation() as simulation:
        await code(simulation.client)


async def test_2_3_another_kind_or_call_under_a_recorded_key_is_an_error() -> None:
    change: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def give(n: int) -> int:
            return n

        try:
            for n in range(2):
                await ctx.step.run("s", give, n + len(change))
            if "kind" in change:
                await ctx.step.uuid("t")
            else:
                await ctx.step.run("t", give, 1)
        except NonDeterminismError as error:
            return str(error)
        return "same"

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == "same"
        journal = await JournalFile.of(simulation.client, handle.id)
    assert (await replay(journal)).result == "same"
    change.append("call")
    called = (await replay(journal, strict=False)).result
    assert "'s'" in called
    assert "give:" in called


async def test_2_3_another_kind_under_a_recorded_key_is_an_error() -> None:
    change: list[str] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def give() -> int:
            return 1

        try:
            if change:
                await ctx.step.uuid("t")
            else:
                await ctx.step.run("t", give)
        except NonDeterminismError as error:
            return str(error)
        return "same"

    async with Simulation() as simulation:
        handle = await code.invoke(simulation.client)
        await handle.result()
        journal = await JournalFile.of(simulation.client, handle.id)
    change.append("kind")
    text = (await replay(journal, strict=False)).result
    assert "recorded as run" in text
    assert "uuid" in text


# -- 4: fenced ------------------------------------------------------------------------------------


async def test_2_4_a_worker_that_lost_its_claim_writes_nothing_and_is_told() -> None:
    let_go = asyncio.Event()
    told: list[str] = []
    ran: list[str] = []

    @workflow(state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def body() -> str:
            ctx.state.count += 1
            ran.append("body")
            if len(ran) == 1:
                await let_go.wait()
            return "x"

        try:
            await ctx.step.run("a", body)
        except AttemptSealed:
            told.append("sealed")
            raise
        return ctx.state.count

    database = MemoryDatabase()
    async with by_hand(database=database) as first:
        handle = await code.invoke(first.client)
        await until(lambda: ran == ["body"])
        assert first.database is not None
        first.database.liveness.counters.pop(first.node.engine.worker_id or "")
        async with Simulation(database=database, clock=first.clock) as second:
            await pass_time(second, 3)
            assert await second.client.get_handle(handle.id).result() == 1
            rows = await rows_of(second, handle.id)
            let_go.set()
            await turns()
            assert await rows_of(second, handle.id) == rows
            assert await second.client.get_handle(handle.id).state() == {"count": 1}
    assert told == ["sealed"]
    assert ran == ["body", "body"]


# -- 8: retries -----------------------------------------------------------------------------------


async def _times_of_tries(simulation: Simulation, **options: Any) -> list[float]:
    tried: list[float] = []

    @workflow(id="tries")
    async def code(ctx: WorkflowContext) -> None:
        async def fail() -> None:
            tried.append(simulation.clock.monotonic())
            raise ValueError(f"try {len(tried)}")

        await ctx.step.run("s", fail, **options)

    handle = await code.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    tried.append(simulation.clock.monotonic())
    return [round(b - a, 3) for a, b in itertools.pairwise(tried)]


async def test_2_8_pauses_grow_up_to_their_limit_and_there_is_none_after_the_last() -> None:
    async with Simulation() as simulation:
        assert await _times_of_tries(simulation) == [1, 2, 0]
        options = {"max_retries": 4, "base_delay": 0.5, "max_delay": 3}
        assert await _times_of_tries(simulation, **options) == [0.5, 1, 2, 3, 0]
        assert await _times_of_tries(simulation, max_retries=0) == [0]


async def test_2_8_jitter_adds_to_a_pause() -> None:
    async with Simulation() as simulation:
        one, two, _ = await _times_of_tries(simulation, base_delay=1, max_delay=1, jitter=0.5)
    assert 1 <= one <= 1.5
    assert 1 <= two <= 1.5
    assert one != two


async def test_2_8_a_predicate_and_types_can_say_no() -> None:
    async with Simulation() as simulation:
        once = {"retry_if": lambda error: str(error) == "try 1"}
        assert await _times_of_tries(simulation, **once) == [1, 0]
        assert await _times_of_tries(simulation, non_retryable=(ValueError,)) == [0]
        assert await _times_of_tries(simulation, non_retryable=(KeyError,)) == [1, 2, 0]


async def test_2_8_a_long_pause_is_a_durable_timer() -> None:
    tried: list[int] = []

    @workflow
    async def code(ctx: WorkflowContext) -> str:
        async def once() -> str:
            tried.append(1)
            if len(tried) == 1:
                raise ValueError("no")
            return "yes"

        return await ctx.step.run("s", once, base_delay=3600, max_delay=3600)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        assert await status_of(simulation, handle.id) == "waiting"
        (step,) = await simulation.client.get_steps(handle.id)
        assert step["status"] == "waiting"
        assert step["due_at"] is not None
        simulation.crash()
        await simulation.restart()
        await pass_time(simulation, 3500, step=100)
        assert tried == [1]
        await pass_time(simulation, 200, step=10)
        assert await simulation.client.get_handle(handle.id).result() == "yes"
        (step,) = await simulation.client.get_steps(handle.id)
    assert tried == [1, 1]
    assert step["attempts"] == 2


async def test_2_8_a_death_in_a_pause_costs_no_try() -> None:
    tried: list[int] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        async def fail() -> None:
            tried.append(1)
            raise ValueError("no")

        await ctx.step.run("s", fail, base_delay=60, max_delay=60, max_retries=2)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await pass_time(simulation, 1)
        simulation.crash()
        await simulation.restart()
        await pass_time(simulation, 300, step=1)
        assert await status_of(simulation, handle.id) == "failed"
    assert len(tried) == 3


_SETS = """
from polos import workflow
from polos.worker.asks import call_of
from pydantic import BaseModel
class Tagged(BaseModel):
    tags: set[str]
print(call_of(len, ({"a", "b", "c"}, [{"d", "e"}], Tagged(tags={"x", "y", "z"}), 5), {}))
"""


def test_2_3_the_digest_of_a_call_is_the_same_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _SETS],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1


def traced(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@traced
def load_point() -> Point:
    return {"x": 3}  # type: ignore[return-value]


@traced
def load_pair() -> Pair:
    return {"left": 1, "right": "2"}  # type: ignore[return-value]


@traced
def load_plain() -> dict[str, int]:
    return {"x": 3}


async def load_color() -> Color:
    return "red"  # type: ignore[return-value]


def loader(cls: Any) -> Any:
    async def load() -> Any:
        return {"x": 4}

    load.__annotations__["return"] = cls
    return load


async def test_2_2_annotations_make_the_same_of_results_live_and_on_replay() -> None:
    seen: list[list[Any]] = []

    @workflow
    async def code(ctx: WorkflowContext) -> None:
        found = [
            await ctx.step.run("point", load_point),
            await ctx.step.run("pair", load_pair),
            await ctx.step.run("plain", load_plain),
            await ctx.step.run("color", load_color),
            await ctx.step.run("made", loader(dict)),
            await ctx.step.run("made again", loader(Point)),
        ]
        seen.append(found)
        await ctx.step.wait_for("w", seconds=3)

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await until(lambda: seen)
        await turns()
        simulation.crash()
        await simulation.restart()
        await pass_time(simulation, 4)
        await simulation.client.get_handle(handle.id).result()
    expected = [Point(x=3), Pair(1, Decimal(2)), {"x": 3}, Color.RED, {"x": 4}, Point(x=4)]
    assert seen == [expected, expected]
