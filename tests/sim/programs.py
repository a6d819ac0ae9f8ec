"""The workflows that are crashed, raced and meddled with; every body notes its step's key.

`build(name)` defines a program's workflows in the current default registry and returns it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from polos import (
    BatchWorkflowInput,
    StepExecutionError,
    StepTimeoutError,
    WaitTimeoutError,
    Workflow,
    WorkflowContext,
    WorkflowState,
    events,
    workflow,
)
from polos.core.events import stream_topic
from polos.core.model import Event
from polos.core.streams import END, RESET
from polos.testing import Outcome, Simulation, SweepReport, crash_sweep
from tests.sim.conftest import Fresh


class Tally(WorkflowState):
    """State that shows what is lost, and what is counted twice."""

    count: int = 0
    notes: list[str] = []
    by_key: dict[str, int] = {}
    mark: float = 0.0


@dataclass
class Program:
    """A workflow to run, and how its outcomes are compared."""

    workflow: Workflow[Any]
    effects: list[Any]
    payload: Any = None
    normalize: Callable[[Outcome], None] | None = None
    compare_history: bool = True
    simulations: list[Simulation] = field(default_factory=list[Simulation])
    """The process that lives now, for bodies that call from outside."""

    def on_open(self, simulation: Simulation) -> None:
        """Note the process that lives now."""
        self.simulations[:] = [simulation]

    async def start(self, client: Any) -> Any:
        """Start the execution."""
        return await self.workflow.invoke(client, self.payload)


def sorted_notes(outcome: Outcome) -> None:
    """Forget the order in which concurrent branches came."""
    if outcome.state is not None:
        outcome.state["notes"] = sorted(outcome.state["notes"])
    outcome.history = [(None, outcome.state)] if outcome.state else []


class Bodies:
    """Bodies of steps that note that they ran."""

    def __init__(self) -> None:
        self.effects: list[Any] = []

    def plain(self, key: str, value: Any = None, turns: int = 0) -> Callable[[], Any]:
        """Return a body that takes some turns of the loop."""

        async def body() -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            self.effects.append(key)
            return value

        return body

    def changing(self, ctx: WorkflowContext, key: str, turns: int = 0) -> Callable[[], Any]:
        """Return a body that changes the state."""

        async def body() -> str:
            ctx.state.count += 1
            ctx.state.by_key[key] = ctx.state.by_key.get(key, 0) + 1
            for _ in range(turns):
                await asyncio.sleep(0)
            ctx.state.notes.append(key)
            self.effects.append(key)
            return key

        return body

    def failing(self, key: str, times: int, error: str = "no") -> Callable[[], Any]:
        """Return a body that fails the first `times` times that the world sees it."""

        async def body() -> str:
            self.effects.append(key)
            if self.effects.count(key) <= times:
                raise ValueError(error)
            return key

        return body


def sequential() -> Program:
    """Steps one by one, with all that replays without them: falsy values, values, a child."""
    bodies = Bodies()

    @workflow(id="sequential", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[Any]:
        seen: list[Any] = []
        for n, falsy in enumerate((None, False, 0, "", [], {}), 1):
            key = "falsy" if n == 1 else f"falsy#{n}"
            seen.append(await ctx.step.run("falsy", bodies.plain(key, falsy)))
        ctx.state.count += 1
        await ctx.step.uuid("id")
        await ctx.step.now("at")
        ctx.state.notes.append("between")
        await ctx.step.random("chance")
        seen.append(await ctx.step.run("last", bodies.changing(ctx, "last")))
        ctx.state.count += 10
        return seen

    return _of(code, bodies)


def _of(code: Workflow[Any], bodies: Bodies, **options: Any) -> Program:
    return Program(code, bodies.effects, **options)


def threads() -> Program:
    """Plain functions, in the pool."""
    bodies = Bodies()

    @workflow(id="threads", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        def count() -> int:
            bodies.effects.append("plain")
            ctx.state.count += 1
            return ctx.state.count

        first = await ctx.step.run("plain", count)
        ctx.state.count += first
        return ctx.state.count

    return _of(code, bodies)


def gathered() -> Program:
    """Two gathers with a sequential stretch between them; bodies end in another order."""
    bodies = Bodies()

    @workflow(id="gathered", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[Any]:
        first = await asyncio.gather(
            *(ctx.step.run(f"a{n}", bodies.plain(f"a{n}", n, turns=9 - 3 * n)) for n in range(3))
        )
        ctx.state.count += sum(first)
        await ctx.step.run("between", bodies.changing(ctx, "between"))
        second = await asyncio.gather(
            *(ctx.step.run(f"b{n}", bodies.changing(ctx, f"b{n}", turns=n)) for n in range(3))
        )
        ctx.state.notes.append("end")
        return [first, second]

    return _of(code, bodies, normalize=sorted_notes)


def branches() -> Program:
    """Branches that change the state between their steps, and in them."""
    bodies = Bodies()

    @workflow(id="branches", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        async def branch(n: int) -> None:
            ctx.state.count += 1
            await ctx.step.run(f"x{n}", bodies.changing(ctx, f"x{n}", turns=n))
            ctx.state.count += 1
            ctx.state.notes.append(f"branch {n}")
            await ctx.step.run(f"y{n}", bodies.changing(ctx, f"y{n}", turns=4 - n))
            ctx.state.count += 1

        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(branch(n))
        total = ctx.state.count
        await ctx.step.run("after", bodies.changing(ctx, "after"))
        return total

    return _of(code, bodies, normalize=sorted_notes)


def completed() -> Program:
    """`as_completed`: the code acts on the order in which results come."""
    bodies = Bodies()

    @workflow(id="completed", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[str]:
        calls = [
            ctx.step.run(f"c{n}", bodies.plain(f"c{n}", f"c{n}", turns=20 * (3 - n)))
            for n in range(3)
        ]
        for next_one in asyncio.as_completed(calls):
            key = await next_one
            ctx.state.notes.append(key)
            await ctx.step.run(f"after {key}", bodies.plain(f"after {key}"))
        return sorted(ctx.state.notes)

    return _of(code, bodies, normalize=sorted_notes)


def racing() -> Program:
    """`wait(FIRST_COMPLETED)` with a loser that is cancelled."""
    bodies = Bodies()

    @workflow(id="racing", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> str:
        async def for_ever() -> None:
            await asyncio.Event().wait()

        winner = asyncio.create_task(ctx.step.run("winner", bodies.changing(ctx, "winner", 3)))
        loser = asyncio.create_task(ctx.step.run("loser", for_ever))
        done, pending = await asyncio.wait({winner, loser}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        ctx.state.notes.append(f"{len(done)} of 2")
        await ctx.step.run("after", bodies.changing(ctx, "after"))
        return winner.result()

    return _of(code, bodies)


def close_race() -> Program:
    """Both sides of a race end within the same turns; the loser's row is recorded as well."""
    bodies = Bodies()

    @workflow(id="close_race", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> int:
        tasks = [
            asyncio.create_task(ctx.step.run(f"r{n}", bodies.changing(ctx, f"r{n}")))
            for n in range(2)
        ]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        ctx.state.count += 100
        await ctx.step.run("c", bodies.plain("c"))
        await ctx.step.run("d", bodies.changing(ctx, "d"))
        await ctx.step.run("e", bodies.plain("e"))
        return len(pending)

    return _of(code, bodies, normalize=sorted_notes)


def children() -> Program:
    """One child, a batch, started and not awaited, nested."""
    bodies = Bodies()

    @workflow(id="leaf", state_schema=Tally)
    async def leaf(ctx: WorkflowContext, n: int) -> int:
        ctx.state.count += n
        await ctx.step.run(f"leaf{n}", bodies.changing(ctx, f"leaf{n}"))
        return ctx.state.count

    @workflow(id="branch")
    async def branch(ctx: WorkflowContext, n: int) -> int:
        inner = await ctx.step.invoke_and_wait(f"inner{n}", leaf, n, initial_state=Tally(count=5))
        await ctx.step.run(f"branch{n}", bodies.plain(f"branch{n}"))
        return inner * 2

    @workflow(id="barren")
    async def barren(ctx: WorkflowContext, key: str) -> None:
        await ctx.step.run(key, bodies.failing(key, 1000), max_retries=0)

    @workflow(id="children", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[Any]:
        one = await ctx.step.invoke_and_wait("one", branch, 1)
        ctx.state.count = one
        batch = await ctx.step.batch_invoke_and_wait(
            "batch",
            [BatchWorkflowInput(id="leaf", payload=n) for n in (2, 3)]
            + [BatchWorkflowInput(id="barren", payload="barren 1")],
        )
        ctx.state.notes.append("batch")
        both = await asyncio.gather(
            ctx.step.invoke_and_wait("four", branch, 4), ctx.step.invoke_and_wait("five", leaf, 5)
        )
        try:
            await ctx.step.invoke_and_wait("bad", barren, "barren 2")
        except StepExecutionError as error:
            ctx.state.notes.append(str(error))
        await ctx.step.invoke("loose", leaf, 6)
        return [one, [each.result for each in batch], batch[2].error, both]

    return _of(code, bodies)


def waits() -> Program:
    """Waits, short and long, alone and beside steps."""
    bodies = Bodies()

    @workflow(id="waits", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[str]:
        ctx.state.count += 1
        await ctx.step.wait_for("short", seconds=0.5)
        await ctx.step.run("s1", bodies.changing(ctx, "s1"))
        await ctx.step.wait_for("long", days=30)
        ctx.state.count += 1

        async def slowly() -> None:
            await ctx.step.wait_for("mixed wait", hours=1)
            ctx.state.notes.append("waited")
            await ctx.step.run("s3", bodies.changing(ctx, "s3"))

        await asyncio.gather(
            slowly(),
            ctx.step.run("s2", bodies.changing(ctx, "s2")),
            ctx.step.wait_for("longer", hours=2),
        )
        await ctx.step.run("s4", bodies.changing(ctx, "s4"))
        return list(ctx.state.notes)

    return _of(code, bodies)


def retries() -> Program:
    """A body that fails and is tried again, after a short pause and after a durable one."""
    bodies = Bodies()

    @workflow(id="retries", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> str:
        ctx.state.count += 1
        one = await ctx.step.run("short", bodies.failing("short", 2), max_retries=3)
        ctx.state.count += 1
        two = await ctx.step.run(
            "durable", bodies.failing("durable", 2), max_retries=3, base_delay=8, max_delay=3600
        )
        both = await asyncio.gather(
            ctx.step.run("pause", bodies.failing("pause", 1), base_delay=60, max_delay=60),
            ctx.step.run("beside", bodies.changing(ctx, "beside", turns=3)),
        )
        return f"{one} {two} {both}"

    return _of(code, bodies)


def failures() -> Program:
    """Failures that the code catches; the last one ends it."""
    bodies = Bodies()

    @workflow(id="failures", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        for n in range(2):
            try:
                await ctx.step.run(f"f{n}", bodies.failing(f"f{n}", 1000, f"no {n}"), max_retries=n)
            except StepExecutionError as error:
                ctx.state.notes.append(str(error))
        outcomes = await asyncio.gather(
            ctx.step.run("ok", bodies.changing(ctx, "ok", turns=2)),
            ctx.step.run("bad", bodies.failing("bad", 1000), max_retries=0),
            return_exceptions=True,
        )
        ctx.state.notes += [str(each) for each in outcomes]
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(ctx.step.run("g1", bodies.failing("g1", 1000), max_retries=0))
                group.create_task(ctx.step.run("g2", asyncio.Event().wait))
        except* StepExecutionError:
            ctx.state.count += 1
        await ctx.step.run("fatal", bodies.failing("fatal", 1000, "the end"), max_retries=0)

    return _of(code, bodies)


def by_chance() -> Program:
    """Sequential code that sets the state by chance and by the clock, outside of steps."""
    bodies = Bodies()

    @workflow(id="by_chance", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[float]:
        async def look(key: str) -> float:
            bodies.effects.append(key)
            return ctx.state.mark

        seen: list[float] = []
        for n in range(3):
            ctx.state.mark = random.random() + time.time()
            ctx.state.by_key[str(ctx.state.mark)] = n
            seen.append(await ctx.step.run(f"look{n}", look, f"look{n}"))
            seen.append(ctx.state.mark)
            if n == 1:
                await ctx.step.wait_for("w", days=1)
                seen.append(ctx.state.mark)
        return [*seen, *map(float, ctx.state.by_key)]

    return _of(code, bodies, normalize=_only_consistency)


def _only_consistency(outcome: Outcome) -> None:
    a, a2, b, b2, b3, c, c2, *keys = outcome.result
    kept = (a == a2, b == b2 == b3, c == c2, keys == [a, b, c], outcome.state is not None)
    outcome.result = kept
    outcome.state = {}
    outcome.steps = dict.fromkeys(outcome.steps)
    outcome.history = [(key, {}) for key, _ in outcome.history]


def hooked() -> Program:
    """`on_start` and `on_end`, recorded as steps."""
    bodies = Bodies()

    def before(ctx: WorkflowContext) -> None:
        bodies.effects.append("on_start.before.0")
        ctx.state.notes.append("before")

    async def after(ctx: WorkflowContext, hook: Any) -> None:
        bodies.effects.append("on_end.after.0")
        ctx.state.notes.append(f"after {hook.current_output}")

    @workflow(id="hooked", state_schema=Tally, on_start=before, on_end=after)
    async def code(ctx: WorkflowContext) -> str:
        ctx.state.count += 1
        return await ctx.step.run("s", bodies.changing(ctx, "s"))

    return _of(code, bodies)


def timeouts() -> Program:
    """A step that takes too long; the execution goes on."""
    bodies = Bodies()

    @workflow(id="timeouts", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> str:
        async def hang() -> None:
            ctx.state.count += 1000
            bodies.effects.append("hang")
            await asyncio.Event().wait()

        try:
            await ctx.step.run("hang", hang, timeout=3, max_retries=1)
        except StepTimeoutError as error:
            ctx.state.notes.append(str(error))
        await ctx.step.run("after", bodies.changing(ctx, "after"))
        return "done"

    return _of(code, bodies)


def out_of_time() -> Program:
    """The whole execution takes too long, and cleans up."""
    bodies = Bodies()

    @workflow(id="out_of_time", state_schema=Tally, run_timeout_seconds=3600)
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("s", bodies.changing(ctx, "s"))
        try:
            await ctx.step.wait_for("w", days=1)
        finally:
            ctx.state.notes.append("cleaning")
            await ctx.step.run("clean", bodies.changing(ctx, "clean"))

    return _of(code, bodies)


def cancelled() -> Program:
    """A cancellation comes while a body runs; the code cleans up with a step."""
    bodies = Bodies()
    program: Program

    @workflow(id="cancelled", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        async def cancelling() -> None:
            bodies.effects.append("cancelling")
            await program.simulations[0].client.cancel_execution(ctx.execution_id)
            await asyncio.Event().wait()

        await ctx.step.run("s", bodies.changing(ctx, "s"))
        try:
            await ctx.step.run("cancelling", cancelling)
        finally:
            ctx.state.notes.append("cleaning")
            await ctx.step.run("clean", bodies.changing(ctx, "clean"))

    program = _of(code, bodies)
    return program


def cancelled_tree() -> Program:
    """A cancellation reaches the children and the branches."""
    bodies = Bodies()
    program: Program

    @workflow(id="patient")
    async def patient(ctx: WorkflowContext) -> None:
        try:
            await ctx.step.wait_for("w", days=365)
        finally:
            await ctx.step.run("patient", bodies.plain("patient"))

    @workflow(id="cancelled_tree", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> None:
        async def cancelling() -> None:
            await program.simulations[0].client.cancel_execution(ctx.execution_id)
            await asyncio.Event().wait()

        async def branch() -> None:
            try:
                await ctx.step.wait_for("branch", days=100)
            finally:
                ctx.state.notes.append("branch")
                await ctx.step.run("clean branch", bodies.changing(ctx, "clean branch"))

        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.invoke_and_wait("child", patient))
            group.create_task(branch())
            await ctx.step.wait_for("a moment", seconds=1)
            await ctx.step.run("cancelling", cancelling)

    def normalize(outcome: Outcome) -> None:
        sorted_notes(outcome)
        outcome.steps.pop("child", None)  # its end may come before ours or after it

    program = _of(code, bodies, normalize=normalize)
    return program


def patched() -> Program:
    """Changes that an execution has from its start: in sequence, in branches, beside a wait."""
    bodies = Bodies()

    @workflow(id="patched", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[bool]:
        answers = [ctx.patched("first"), ctx.patched("first")]
        await ctx.step.run("a", bodies.changing(ctx, "a"))
        answers.append(ctx.patched("second"))

        async def branch(n: int) -> None:
            answers.append(ctx.patched(f"before x{n}"))
            await ctx.step.run(f"x{n}", bodies.changing(ctx, f"x{n}", turns=5 - n))
            answers.append(ctx.patched(f"behind x{n}"))
            answers.append(ctx.patched("any branch"))
            await ctx.step.run(f"y{n}", bodies.changing(ctx, f"y{n}", turns=n))
            answers.append(ctx.patched(f"behind y{n}"))
            if n == 1:
                await ctx.step.wait_for("nap", hours=1)
                answers.append(ctx.patched("behind the nap"))

        await asyncio.gather(*(branch(n) for n in range(3)))
        answers.append(ctx.patched("third"))
        await ctx.step.run("b", bodies.changing(ctx, "b"))
        answers.append(ctx.patched("last"))
        assert all(answers)
        return answers

    return _of(code, bodies, normalize=sorted_notes)


def _heard(outcome: Outcome) -> None:
    """Forget the ids and times of events, and when time ran out."""
    sorted_notes(outcome)
    for key, (status, said) in list(outcome.steps.items()):
        if isinstance(said, dict) and "sequence_id" in said:
            outcome.steps[key] = (status, [said["sequence_id"], said["event_type"], said["data"]])
        elif key == "nobody" and status == "failed":
            outcome.steps[key] = (status, str(said).split(" at ")[0])


def hearing() -> Program:
    """Events: of a child, of itself, filtered by the store and by the code, and none in time."""
    bodies = Bodies()
    simulations: list[Simulation] = []

    async def told() -> list[Any]:
        bodies.effects.append("told")
        client = simulations[0].client
        found = [await events.read(client, topic) for topic in ("news", "answers", "mine")]
        return [[each.sequence_id, each.data] for some in found for each in some]

    @workflow(id="hearing_child", state_schema=Tally)
    async def child(ctx: WorkflowContext) -> Any:
        back, _ = await asyncio.gather(
            ctx.step.wait_for_event("back", "answers"),
            ctx.step.publish_event("tell", "news", {"n": 1}, "asks"),
        )
        await ctx.step.publish_workflow_event("note", {"back": back.data})
        return back.data

    @workflow(id="hearing", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[Any]:
        async def listen() -> Any:
            first = await ctx.step.wait_for_event("first", "news", filter={"n": (">=", 1)})
            ctx.state.count += first.data["n"]
            await ctx.step.publish_event("answer", "answers", {"n": 5})
            return first.event_type

        async def speak() -> None:
            for n in range(3):
                await ctx.step.publish_event(f"mine {n}", "mine", {"n": n})
                await ctx.step.run(f"said {n}", bodies.changing(ctx, f"said {n}"))

        heard = await asyncio.gather(listen(), ctx.step.invoke_and_wait("child", child))
        mine, _ = await asyncio.gather(
            ctx.step.wait_for_event("mine", "mine", filter=lambda event: event.data["n"] == 2),
            speak(),
        )
        try:
            await ctx.step.wait_for_event("nobody", "nothing", timeout=3600)
        except WaitTimeoutError:
            ctx.state.count += 1
        return [heard, mine.data, await ctx.step.run("told", told)]

    return _of(code, bodies, normalize=_heard, simulations=simulations)


def _valid(events: list[Event]) -> dict[str, list[Any]]:
    """Return what a reader has of a stream in the end, by where it comes from."""
    found: dict[str, list[Any]] = {}
    for event in events:
        data = json.loads(event.data)
        key = data["step_key"] or ""
        if event.type == RESET:
            found[key] = []
        elif event.type == END:
            found.setdefault(key, []).append("end")
        else:
            found.setdefault(key, []).append(data["data"])
    return dict(sorted(found.items()))


def streaming() -> Program:
    """Chunks of generators, of bodies and threads, and of the code around them, also in turns."""
    bodies = Bodies()
    simulations: list[Simulation] = []

    async def seen(execution_id: str) -> Any:
        bodies.effects.append("seen")
        topics = simulations[0].node.engine.topics
        events = await topics.after(stream_topic(execution_id, execution_id), 0, 1000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        return _valid(events)

    @workflow(id="streaming", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> Any:
        async def words(key: str, count: int) -> AsyncIterator[str]:
            bodies.effects.append(key)
            for n in range(count):
                yield f"{key} {n}"
                await asyncio.sleep(0)
            ctx.state.count += 1

        def numbers() -> Iterator[int]:
            bodies.effects.append("numbers")
            yield from range(100)

        async def flaky() -> str:
            ctx.emit(["flaky", 1])
            await ctx.emit(["flaky", 2]).durable()
            return await bodies.failing("flaky", 1)()

        ctx.emit("begin")
        first = await ctx.step.stream("words", words, "words", 3)
        ctx.emit({"between": len(first)})
        await ctx.emit(None).durable()
        both = await asyncio.gather(
            ctx.step.stream("more", words, "more", 2),
            ctx.step.stream("numbers", numbers, collect=sum),
            ctx.step.stream("none", words, "none", 0),
        )
        await ctx.step.run("flaky", flaky, max_retries=2)
        await ctx.step.wait_for("wait", hours=1)
        ctx.emit("behind the wait")
        await ctx.step.run("last", bodies.plain("last"))
        return [first, both, await ctx.step.run("seen", seen, ctx.execution_id)]

    return _of(code, bodies, normalize=sorted_notes, simulations=simulations)


def _timeless(outcome: Outcome) -> None:
    """Forget when answers came, and when time ran out."""
    sorted_notes(outcome)
    for key in ("mine", "nobody"):
        step = outcome.steps.get(key)
        if step is not None and step[0] in ("completed", "failed"):
            said = step[1]["data"] if isinstance(step[1], dict) else str(step[1]).split(" by ")[0]
            outcome.steps[key] = (step[0], said)


def asking() -> Program:
    """Questions: of a child, of itself, beside steps, with a form, in time and out of time."""
    bodies = Bodies()
    form = {"fields": [{"key": "n", "type": "integer", "required": True}, {"key": "by"}]}
    form["fields"][1]["default"] = "somebody"

    @workflow(id="asking_child", state_schema=Tally)
    async def child(ctx: WorkflowContext) -> list[Any]:
        one = await ctx.step.suspend("ok", {"_form": form})
        ctx.state.count += one["data"]["n"]
        two, three, _ = await asyncio.gather(
            ctx.step.suspend("left"),
            ctx.step.suspend("right", timeout=86_400),
            ctx.step.run("c2", bodies.changing(ctx, "c2", turns=3)),
        )
        return [one["data"], two["data"], three["data"]]

    @workflow(id="asking", state_schema=Tally)
    async def code(ctx: WorkflowContext) -> list[Any]:
        async def answers() -> None:
            for key, data in (("right", [1]), ("ok", {"n": 2}), ("left", None)):
                await ctx.step.resume(f"to {key}", key, ctx.execution_id, "asking", data)
            await ctx.step.run("said", bodies.changing(ctx, "said"))

        told, _ = await asyncio.gather(ctx.step.invoke_and_wait("child", child), answers())
        mine, _ = await asyncio.gather(
            ctx.step.suspend("mine"), ctx.step.resume("to me", "mine", ctx.execution_id, data="me")
        )
        try:
            await ctx.step.suspend("nobody", {"ask": "?"}, timeout=3600)
        except WaitTimeoutError:
            ctx.state.count += 1
        return [told, mine["data"]]

    return _of(code, bodies, normalize=_timeless)


class Shelf(WorkflowState):
    """State that several executions share, one after the other."""

    books: list[str] = []
    lent: int = 0


def keyed() -> Program:
    """Executions of one key, of which one fails, and leaves its state or does not."""
    bodies = Bodies()

    @workflow(id="put", state_schema=Shelf, state_key=lambda book: book[0])
    async def put(ctx: WorkflowContext, book: str) -> list[str]:
        ctx.state.books.append(book)
        await ctx.step.run(f"put_{book}", bodies.plain(f"put_{book}"))
        ctx.state.lent += 1
        if book.endswith("!"):
            raise ValueError(book)
        return list(ctx.state.books)

    @workflow(id="lend", state_schema=Shelf, state_key=lambda _: "all", state_on_failure="rollback")
    async def lend(ctx: WorkflowContext, number: int) -> int:
        ctx.state.lent += 1
        await ctx.step.run(f"lend_{number}", bodies.plain(f"lend_{number}"))
        if number == 2:
            raise ValueError("no")
        return ctx.state.lent

    @workflow(id="root", state_schema=Tally)
    async def root(ctx: WorkflowContext) -> Any:
        inputs = [BatchWorkflowInput(id="put", payload=p) for p in ("a1!", "a2")]
        ends = await ctx.step.batch_invoke_and_wait("puts", inputs)
        ctx.state.notes = ["|".join(end.result or [end.error or ""]) for end in ends]
        lends = [BatchWorkflowInput(id="lend", payload=p) for p in (2, 3)]
        ends = await ctx.step.batch_invoke_and_wait("lends", lends)
        ctx.state.count = sum(end.result or 0 for end in ends)
        left = await ctx.step.get_state("left", (put, "a"))
        return [left, await ctx.step.get_state("lent", ("lend", "all"))]

    return Program(root, bodies.effects)


PROGRAMS: dict[str, Callable[[], Program]] = {
    make.__name__: make
    for make in (
        sequential,
        threads,
        gathered,
        branches,
        completed,
        racing,
        close_race,
        children,
        waits,
        retries,
        failures,
        by_chance,
        hooked,
        timeouts,
        out_of_time,
        cancelled,
        cancelled_tree,
        patched,
        hearing,
        streaming,
        asking,
        keyed,
    )
}


def build(name: str) -> Program:
    """Define the workflows of a program and return it."""
    return PROGRAMS[name]()


async def swept(program: Program, deaths: int, fresh: Fresh | None) -> SweepReport:
    """Crash a program at every commit, up to `deaths` times, and compare how it ends."""
    return await crash_sweep(
        program.start,
        effects=program.effects,
        compare_history=program.compare_history,
        normalize=program.normalize,
        on_open=program.on_open,
        deaths=deaths,
        fresh=fresh,
    )
