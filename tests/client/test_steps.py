"""`ctx.step`: every kind of body, values, waits, spans and hooks, through the public names."""

import asyncio
import contextvars
import functools
import gc
import io
import itertools
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from polos import (
    ExecutionFailedError,
    PolosClient,
    StepExecutionError,
    StepTimeoutError,
    WorkflowContext,
    workflow,
)
from polos.errors import UsageError
from polos.testing import ManualClock, Simulation
from polos.workflow.hook import HookContext

color: contextvars.ContextVar[str] = contextvars.ContextVar("color", default="none")


async def double(n: int) -> int:
    await asyncio.sleep(0)
    return 2 * n


class Adder:
    def __init__(self, base: int) -> None:
        self.base = base

    def add(self, n: int) -> int:
        return self.base + n

    async def add_later(self, n: int) -> int:
        return self.base + n

    async def __call__(self, n: int) -> int:
        return self.base + n

    @classmethod
    def make(cls, n: int) -> int:
        return n

    @staticmethod
    async def just(n: int) -> int:
        return n


class Plain:
    def __call__(self, n: int) -> int:
        return n


def thread_name(*args: Any) -> str:
    return threading.current_thread().name


async def test_every_kind_of_callable_is_a_body(simulation: Simulation) -> None:
    adder = Adder(10)

    @workflow(id="steps.kinds")
    async def kinds(ctx: WorkflowContext) -> dict[str, int]:
        run = ctx.step.run
        return {
            "async": await run("async", double, 1),
            "keywords": await run("keywords", double, n=2),
            "lambda": await run("lambda", lambda: 3),
            "lambda around async": await run("lambda around async", lambda: double(2)),
            "bound": await run("bound", adder.add, 5),
            "bound async": await run("bound async", adder.add_later, 6),
            "partial": await run("partial", functools.partial(adder.add, 7)),
            "partial async": await run("partial async", functools.partial(double, n=4)),
            "partial twice": await run(
                "partial twice", functools.partial(functools.partial(double), 5)
            ),
            "object": await run("object", adder, 8),
            "plain object": await run("plain object", Plain(), 9),
            "class method": await run("class method", Adder.make, 10),
            "static": await run("static", Adder.just, 11),
            "builtin": await run("builtin", len, [1, 2]),
            "class": await run("class", int, "12"),
        }

    assert await kinds(simulation.client) == {
        "async": 2,
        "keywords": 4,
        "lambda": 3,
        "lambda around async": 4,
        "bound": 15,
        "bound async": 16,
        "partial": 17,
        "partial async": 8,
        "partial twice": 10,
        "object": 18,
        "plain object": 9,
        "class method": 10,
        "static": 11,
        "builtin": 2,
        "class": 12,
    }


async def test_a_plain_body_runs_in_a_thread_with_the_callers_context(
    simulation: Simulation,
) -> None:
    @workflow(id="steps.threads")
    async def threads(ctx: WorkflowContext) -> list[Any]:
        color.set("red")

        def body() -> list[Any]:
            seen = color.get()
            color.set("blue")
            return [seen, threading.current_thread() is threading.main_thread()]

        return [*await ctx.step.run("body", body), color.get()]

    color.set("the caller's")
    assert await threads(simulation.client) == ["red", False, "red"]


async def test_bodies_of_plain_functions_run_beside_each_other(simulation: Simulation) -> None:
    barrier = threading.Barrier(8, timeout=100)

    @workflow(id="steps.beside")
    async def beside(ctx: WorkflowContext) -> int:
        met = await asyncio.gather(*(ctx.step.run(f"b{n}", barrier.wait) for n in range(8)))
        return len(set(met))

    assert await beside(simulation.client) == 8


async def test_code_does_not_see_the_callers_context(simulation: Simulation) -> None:
    @workflow(id="steps.context")
    async def context(ctx: WorkflowContext) -> str:
        return color.get()

    color.set("the caller's")
    assert await context(simulation.client) == "none"


@pytest.mark.parametrize("given", [3, None, "text", double(1)])
async def test_what_cannot_be_called_is_refused(simulation: Simulation, given: Any) -> None:
    @workflow(id=f"steps.uncallable.{given!r:.10}")
    async def uncallable(ctx: WorkflowContext) -> None:
        await ctx.step.run("s", given)

    with pytest.raises(ExecutionFailedError, match="expected a function"):
        await uncallable(simulation.client)
    if asyncio.iscoroutine(given):
        given.close()


@pytest.mark.parametrize("key", ["", "a#2", "a#10", None, 3])
async def test_a_key_is_a_text_that_is_not_numbered(simulation: Simulation, key: Any) -> None:
    @workflow(id=f"steps.key.{key}")
    async def keyed(ctx: WorkflowContext) -> None:
        await ctx.step.run(key, double, 1)

    with pytest.raises(ExecutionFailedError, match="step key"):
        await keyed(simulation.client)


async def test_a_repeated_key_is_numbered(simulation: Simulation) -> None:
    @workflow(id="steps.repeated")
    async def repeated(ctx: WorkflowContext) -> list[int]:
        return [await ctx.step.run("same", double, n) for n in range(3)]

    handle = await repeated.invoke(simulation.client)
    assert await handle.result() == [0, 2, 4]
    steps = await simulation.client.get_steps(handle.id)
    assert [s["step_key"] for s in steps] == ["same", "same#2", "same#3"]


class Flaky:
    """Fails as told, and notes when it was called and with which idempotency key."""

    def __init__(self, clock: ManualClock, *errors: Exception) -> None:
        self.clock = clock
        self.errors = list(errors)
        self.moments: list[float] = []
        self.keys: list[str] = []

    async def __call__(self, ctx: WorkflowContext | None = None) -> str:
        self.moments.append(round(self.clock.monotonic(), 3))
        if ctx is not None:
            self.keys.append(ctx.step.idempotency_key())
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    @property
    def pauses(self) -> list[float]:
        return [round(b - a, 1) for a, b in zip(self.moments, self.moments[1:], strict=False)]


async def run_flaky(simulation: Simulation, flaky: Flaky, **options: Any) -> str:
    @workflow(id="steps.flaky")
    async def flaking(ctx: WorkflowContext) -> str:
        return await ctx.step.run("flaky", flaky, ctx, **options)

    return await flaking(simulation.client)


async def test_a_failing_body_is_tried_again_with_growing_pauses(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, OSError("1"), OSError("2"))
    assert await run_flaky(simulation, flaky) == "done"
    assert flaky.pauses == [1.0, 2.0]
    assert len(set(flaky.keys)) == 1


async def test_out_of_retries_it_fails_without_another_pause(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, *(OSError(str(n)) for n in range(9)))
    with pytest.raises(ExecutionFailedError, match="failed after 2 retries: 2"):
        await run_flaky(simulation, flaky)
    assert flaky.pauses == [1.0, 2.0]
    assert simulation.clock.monotonic() < 4


async def test_pauses_grow_up_to_their_limit(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, *(OSError(str(n)) for n in range(6)))
    options = {"max_retries": 6, "base_delay": 3.0, "max_delay": 20.0}
    assert await run_flaky(simulation, flaky, **options) == "done"
    assert flaky.pauses == [3, 6, 12, 20, 20, 20]  # those above 5 s are durable timers
    (execution,) = await simulation.client.list_executions()
    (step,) = await simulation.client.get_steps(execution["id"])
    assert (step["attempts"], step["status"]) == (7, "completed")


async def test_no_delay_and_no_retries(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, OSError("1"), OSError("2"))
    assert await run_flaky(simulation, flaky, base_delay=0) == "done"
    assert flaky.pauses == [0, 0]
    flaky = Flaky(simulation.clock, OSError("1"))
    with pytest.raises(ExecutionFailedError, match="after 0 retries: 1"):
        await run_flaky(simulation, flaky, max_retries=0)
    assert len(flaky.moments) == 1


async def test_jitter_adds_up_to_its_share(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, *(OSError(str(n)) for n in range(4)))
    await run_flaky(simulation, flaky, max_retries=4, base_delay=2, max_delay=2, jitter=0.5)
    assert all(2.0 <= pause <= 3.0 for pause in flaky.pauses)
    assert len(set(flaky.pauses)) > 1


async def test_a_predicate_and_types_say_no(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, OSError("again"), OSError("stop"), OSError("never"))
    with pytest.raises(ExecutionFailedError, match="stop"):
        await run_flaky(simulation, flaky, retry_if=lambda error: "again" in str(error))
    assert len(flaky.moments) == 2
    flaky = Flaky(simulation.clock, OSError("1"), KeyError("2"), OSError("3"))
    with pytest.raises(ExecutionFailedError, match="2"):
        await run_flaky(simulation, flaky, non_retryable=(LookupError, ValueError))
    assert len(flaky.moments) == 2


@pytest.mark.parametrize(
    "options",
    [
        *({"max_retries": n} for n in (-1, 1.5, "2", None, True)),
        *({"base_delay": n} for n in (-1, math.nan, math.inf, None)),
        *({"max_delay": -1}, {"jitter": -1}, {"jitter": math.nan}),
        *({"timeout": n} for n in (0, math.nan, math.inf, "x")),
        *({"retry_if": 5}, {"non_retryable": ("ValueError",)}),
    ],
)
async def test_limits_that_make_no_sense_are_refused(
    simulation: Simulation, options: dict[str, Any]
) -> None:
    flaky = Flaky(simulation.clock)
    with pytest.raises(ExecutionFailedError, match=next(iter(options))):
        await run_flaky(simulation, flaky, **options)
    assert flaky.moments == []


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


class Abort(BaseException):
    """As test frameworks and others raise it, past `except Exception`."""


def raiser(error: BaseException, where: str) -> Callable[[], Any]:
    def plain() -> None:
        raise error

    async def later() -> None:
        raise error

    return plain if where == "thread" else later


@pytest.mark.parametrize("where", ["thread", "loop"])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Mute(), "Mute (its message cannot be read: ValueError)"),
        (Abort("stop"), "stop"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
async def test_whatever_a_body_raises_is_a_failure_of_its_step(
    simulation: Simulation, error: BaseException, text: str, where: str
) -> None:
    @workflow(id="steps.raising")
    async def raising(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("r", raiser(error, where), max_retries=1)
        except StepExecutionError as failed:
            return str(failed)
        return ""

    handle = await raising.invoke(simulation.client)
    assert await handle.result(60) == f"Step execution failed after 1 retries: {text}"
    (step,) = await simulation.client.get_steps(handle.id)
    assert step["attempts"] == (2 if isinstance(error, Exception) else 1)


@pytest.mark.parametrize("error", [Mute(), Abort("stop"), SystemExit(3)])
async def test_what_leaves_plain_code_fails_the_execution_and_nothing_else(
    simulation: Simulation, error: BaseException
) -> None:
    @workflow(id="steps.plain_leaving")
    def code(ctx: WorkflowContext) -> None:
        raise error

    with pytest.raises(ExecutionFailedError):
        await code(simulation.client)


@pytest.mark.parametrize("error", [Mute(), Abort("stop"), SystemExit(3)])
async def test_whatever_leaves_the_code_fails_the_execution(
    simulation: Simulation, error: BaseException
) -> None:
    @workflow(id="steps.leaving")
    async def leaving(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("u")
        raise error

    handle = await leaving.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError):
        await handle.result(60)


async def test_a_predicate_that_fails_says_no_and_why(simulation: Simulation) -> None:
    flaky = Flaky(simulation.clock, OSError("first"))
    with pytest.raises(ExecutionFailedError, match=r"first \(its retry_if raised KeyError: 'x'"):
        await run_flaky(simulation, flaky, retry_if=lambda error: {}["x"])
    (execution,) = await simulation.client.list_executions()
    (step,) = await simulation.client.get_steps(execution["id"])
    assert step["status"] == "failed"


async def test_one_type_or_a_list_of_them_may_be_non_retryable(simulation: Simulation) -> None:
    for types in (OSError, [KeyError, OSError]):
        flaky = Flaky(simulation.clock, OSError("1"))
        with pytest.raises(ExecutionFailedError):
            await run_flaky(simulation, flaky, non_retryable=types)
        assert len(flaky.moments) == 1


async def test_iterators_reach_the_body_unread(simulation: Simulation) -> None:
    @workflow(id="steps.iterators")
    async def iterators(ctx: WorkflowContext) -> list[Any]:
        step = ctx.step
        return [
            await step.run("generator", sum, (n for n in range(4))),
            await step.run("inside", lambda pair: list(pair[0]), [iter("ab")]),
            await step.run("endless", next, itertools.count(7)),
            await step.run("file", lambda file: file.read(), io.StringIO("text")),
        ]

    assert await iterators(simulation.client) == [6, ["a", "b"], 7, "text"]


async def test_tasks_that_the_code_leaves_behind_are_stopped_without_a_word(
    simulation: Simulation,
) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, facts: told.append(facts))

    @workflow(id="steps.leftover")
    async def leftover(ctx: WorkflowContext) -> str:
        asyncio.ensure_future(ctx.step.wait_for("w", hours=1))  # noqa: RUF006
        return await ctx.step.run("a", lambda: "done")

    assert await leftover(simulation.client) == "done"
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    assert told == []


async def test_an_attempt_that_takes_too_long_is_tried_again(simulation: Simulation) -> None:
    calls: list[float] = []

    @workflow(id="steps.slow")
    async def slow(ctx: WorkflowContext) -> str:
        async def body() -> str:
            calls.append(simulation.clock.monotonic())
            if len(calls) < 3:
                await asyncio.Event().wait()
            return "quick"

        return await ctx.step.run("body", body, timeout=4)

    assert await slow(simulation.client) == "quick"
    assert [round(each) for each in calls] == [0, 5, 11]


async def test_the_last_attempts_time_limit_is_a_step_timeout(simulation: Simulation) -> None:
    @workflow(id="steps.stuck")
    async def stuck(ctx: WorkflowContext) -> list[str | None]:
        try:
            await ctx.step.run("body", asyncio.Event().wait, timeout=4, max_retries=0)
        except StepTimeoutError as error:
            return [error.step_key, error.error_type, str(error)]
        return []

    key, cause, text = await stuck(simulation.client)
    assert (key, cause) == ("body", "StepTimeoutError")
    assert "4 seconds" in (text or "")
    assert issubclass(StepTimeoutError, StepExecutionError | TimeoutError)


async def test_a_failure_says_which_step_and_why(simulation: Simulation) -> None:
    @workflow(id="steps.failure")
    async def failing(ctx: WorkflowContext) -> list[Any]:
        try:
            await ctx.step.run("body", Flaky(simulation.clock, KeyError("k")), max_retries=0)
        except StepExecutionError as error:
            return [error.step_key, error.error_type, error.reason]
        return []

    reason = "Step execution failed after 0 retries: 'k'"
    assert await failing(simulation.client) == ["body", "KeyError", reason]


async def test_the_idempotency_key_names_execution_and_step(simulation: Simulation) -> None:
    @workflow(id="steps.effects")
    async def effects(ctx: WorkflowContext) -> list[str]:
        def key() -> str:
            return ctx.step.idempotency_key()

        async def named() -> str:
            return ctx.step.idempotency_key("b")

        keys = [await ctx.step.run("a", key), await ctx.step.run("a", key)]
        keys += [await ctx.step.run("b", named), ctx.step.idempotency_key("a")]
        with pytest.raises(UsageError, match="step's key"):
            ctx.step.idempotency_key()
        return keys

    one, two = [await effects(simulation.client) for _ in range(2)]
    assert one[0] == one[3]
    assert len({*one, *two}) == 6


async def test_uuid_now_and_random_are_recorded(simulation: Simulation) -> None:
    @workflow(id="steps.values")
    async def values(ctx: WorkflowContext) -> list[Any]:
        found = [
            await ctx.step.uuid("u"),
            await ctx.step.uuid("u"),
            await ctx.step.now("n"),
            await ctx.step.random("r"),
            await ctx.step.random("r"),
        ]
        await ctx.step.wait_for("w", seconds=2)
        return [*found, await ctx.step.now("n")]

    handle = await values.invoke(simulation.client)
    one, two, now, r1, r2, later = await handle.result()
    assert str(UUID(one)) == one != two
    assert 0 <= r1 < 1
    assert r1 != r2
    assert now == 1_700_000_000_000
    assert later - now == 2000
    steps = await simulation.client.get_steps(handle.id)
    assert [s["output"] for s in steps] == [one, two, now, r1, r2, None, later]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"seconds": 5}, 5),
        ({"minutes": 2, "seconds": 1}, 121),
        ({"hours": 1.5}, 5400),
        ({"days": 30}, 30 * 86400),
        ({"weeks": 1, "days": -1}, 6 * 86400),
        ({"seconds": 0.25}, 0.25),
    ],
)
async def test_wait_for_adds_its_times(
    simulation: Simulation, given: dict[str, float], seconds: float
) -> None:
    @workflow(id="steps.waiting")
    async def waiting(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", **given)

    await waiting(simulation.client)
    assert simulation.clock.monotonic() == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    "given", [{"weeks": 10**6}, {"weeks": 10**12}, {"seconds": math.inf}, {"days": 36_600}]
)
async def test_a_wait_of_more_than_a_century_fails_the_step(
    simulation: Simulation, given: dict[str, float]
) -> None:
    @workflow(id="steps.for_ever")
    async def for_ever(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", **given)

    handle = await for_ever.invoke(simulation.client)
    with pytest.raises(ExecutionFailedError, match="at most 100 years"):
        await handle.result()
    (step,) = await simulation.client.get_steps(handle.id)
    assert step["status"] == "failed"


@pytest.mark.parametrize("given", [{"seconds": "5"}, {"minutes": True}, {"days": timedelta(1)}])
async def test_a_wait_is_a_number(simulation: Simulation, given: dict[str, Any]) -> None:
    @workflow(id="steps.odd_wait")
    async def odd_wait(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", **given)

    with pytest.raises(ExecutionFailedError, match="expected a number"):
        await odd_wait(simulation.client)


@pytest.mark.parametrize(
    "moment", [datetime.max.replace(tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)]
)
async def test_wait_until_the_end_of_time(simulation: Simulation, moment: datetime) -> None:
    @workflow(id="steps.end_of_time")
    async def end_of_time(ctx: WorkflowContext) -> None:
        await ctx.step.wait_until("w", moment)

    with pytest.raises(ExecutionFailedError, match="100 years away"):
        await end_of_time(simulation.client)


@pytest.mark.parametrize("given", [{}, {"seconds": 0}, {"minutes": -1}, {"hours": 1, "days": -1}])
async def test_wait_for_nothing_fails_the_step(
    simulation: Simulation, given: dict[str, float]
) -> None:
    @workflow(id="steps.no_wait")
    async def no_wait(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.wait_for("w", **given)
        except StepExecutionError as error:
            return str(error)
        return ""

    handle = await no_wait.invoke(simulation.client)
    assert await handle.result() == "Wait duration must be positive"
    (step,) = await simulation.client.get_steps(handle.id)
    assert (step["status"], step["error"]) == ("failed", "Wait duration must be positive")


async def test_wait_until_a_moment(simulation: Simulation) -> None:
    start = datetime.fromtimestamp(simulation.clock.now() / 1e6, UTC)

    @workflow(id="steps.until")
    async def until(ctx: WorkflowContext) -> str:
        await ctx.step.wait_until("aware", start + timedelta(seconds=10))
        await ctx.step.wait_until(
            "naive is UTC", (start + timedelta(seconds=20)).replace(tzinfo=None)
        )
        try:
            await ctx.step.wait_until("past", start)
        except StepExecutionError as error:
            return str(error)
        return ""

    assert "is in the past" in await until(simulation.client)
    assert simulation.clock.monotonic() == pytest.approx(20, abs=0.1)


async def test_waits_side_by_side_take_the_longest(simulation: Simulation) -> None:
    @workflow(id="steps.side")
    async def side(ctx: WorkflowContext) -> list[int]:
        order: list[int] = []

        async def wait(n: int) -> None:
            await ctx.step.wait_for(f"w{n}", hours=n)
            order.append(n)

        await asyncio.gather(wait(3), wait(1), wait(2))
        return order

    assert await side(simulation.client) == [1, 2, 3]
    assert simulation.clock.monotonic() == pytest.approx(3 * 3600, abs=1)


async def test_code_beside_a_wait_goes_on_meanwhile() -> None:
    ran = asyncio.Event()

    @workflow(id="steps.meanwhile")
    async def meanwhile(ctx: WorkflowContext) -> None:
        async def work() -> None:
            await asyncio.sleep(0.05)  # the execution is parked by now
            await ctx.step.run("work", ran.set)

        await asyncio.gather(ctx.step.wait_for("long", days=1), work())

    async with PolosClient("sqlite://") as client:
        await meanwhile.invoke(client)
        async with asyncio.timeout(100):
            await ran.wait()


async def test_code_beside_a_child_goes_on_meanwhile() -> None:
    ran = asyncio.Event()

    @workflow(id="steps.child")
    async def child(ctx: WorkflowContext) -> None:
        await ctx.step.run("gate", ran.wait)

    @workflow(id="steps.parent")
    async def parent(ctx: WorkflowContext) -> str:
        async def work() -> None:
            await asyncio.sleep(0.05)  # the execution is parked by now
            await ctx.step.run("work", ran.set)

        await asyncio.gather(ctx.step.invoke_and_wait("child", child), work())
        return "joined"

    async with PolosClient("sqlite://") as client:
        assert await parent(client, timeout=100) == "joined"


async def test_trace_measures_a_block_and_lets_errors_pass(simulation: Simulation) -> None:
    @workflow(id="steps.traced")
    async def traced(ctx: WorkflowContext) -> int:
        with ctx.step.trace("outer", {"a": 1}) as span:
            span.set_attribute("b", 2)
            value = await ctx.step.run("body", double, 4)
        with pytest.raises(KeyError), ctx.step.trace("inner") as failed:
            raise KeyError("k")
        assert isinstance(failed.error, KeyError)
        return value

    assert await traced(simulation.client) == 8


async def test_steps_inside_a_body_are_refused(simulation: Simulation) -> None:
    @workflow(id="steps.inside")
    async def inside(ctx: WorkflowContext) -> None:
        await ctx.step.run("outer", lambda: ctx.step.run("inner", double, 1), max_retries=0)

    with pytest.raises(ExecutionFailedError, match="inside the body of step 'outer'"):
        await inside(simulation.client)


async def test_hooks_run_once_each_as_steps(simulation: Simulation) -> None:
    seen: list[Any] = []

    def before(ctx: WorkflowContext, hook: HookContext) -> None:
        seen.append(("before", hook.current_payload, hook.current_output, hook.workflow_id))

    async def also(ctx: WorkflowContext) -> None:
        seen.append(("also", ctx.execution_id))

    def bare() -> None:
        seen.append("bare")

    async def after(ctx: WorkflowContext, hook: HookContext) -> None:
        seen.append(("after", hook.current_output))

    @workflow(id="steps.hooked", on_start=[before, also, bare], on_end=after)
    async def hooked(ctx: WorkflowContext, n: int) -> int:
        seen.append("code")
        return n + 1

    handle = await hooked.invoke(simulation.client, 1)
    assert await handle.result() == 2
    assert seen == [
        ("before", 1, None, "steps.hooked"),
        ("also", handle.id),
        "bare",
        "code",
        ("after", 2),
    ]
    steps = await simulation.client.get_steps(handle.id)
    assert [s["step_key"] for s in steps] == [
        "on_start.before.0",
        "on_start.also.1",
        "on_start.bare.2",
        "on_end.after.0",
    ]


async def test_a_hook_that_fails_fails_the_execution(simulation: Simulation) -> None:
    ran: list[str] = []

    def broken() -> None:
        ran.append("hook")
        raise OSError("no hook")

    @workflow(id="steps.unhooked", on_start=broken)
    async def unhooked(ctx: WorkflowContext) -> None:
        ran.append("code")

    with pytest.raises(ExecutionFailedError, match="no hook"):
        await unhooked(simulation.client)
    assert ran == ["hook"] * 3


async def test_a_plain_workflow_runs_in_a_thread(simulation: Simulation) -> None:
    @workflow(id="steps.plain")
    def plain(ctx: WorkflowContext) -> str:
        return threading.current_thread().name

    assert await plain(simulation.client) != threading.current_thread().name
