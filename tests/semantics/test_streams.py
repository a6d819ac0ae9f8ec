"""Streaming out: chunks live and in order, each once, whatever dies; on every store."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    ExecutionFailedError,
    ExecutionNotFoundError,
    PolosClient,
    StepExecutionError,
    WorkflowContext,
    events,
    workflow,
)
from polos.client.streams import Chunk
from polos.core.events import stream_topic
from polos.errors import EncodeError, UsageError
from polos.store.commands import Command
from polos.store.sqlite.store import MemoryDatabase
from polos.testing import Simulation
from tests.semantics.conftest import Open
from tests.sim.helpers import by_hand, turns, until


async def whole(client: PolosClient, id: str, **options: Any) -> list[Chunk]:
    return [chunk async for chunk in client.stream(id, **options)]


async def data(client: PolosClient, id: str, **options: Any) -> list[Any]:
    """Read a stream to its end: the data, and RESET for each mark."""
    chunks = await whole(client, id, **options)
    return ["RESET" if chunk.type == "reset" else chunk.data for chunk in chunks]


async def count_to(count: int) -> AsyncIterator[int]:
    for n in range(count):
        yield n


class Word(BaseModel):
    text: str


# -- emitting -------------------------------------------------------------------------------------


async def test_chunks_come_in_order_from_everywhere(client: PolosClient) -> None:
    def in_thread(ctx: WorkflowContext) -> str:
        for n in range(200):
            ctx.emit(n)
        return "done"

    async def in_body(ctx: WorkflowContext) -> None:
        await ctx.emit(Word(text="in a body"))

    @workflow(id="everywhere")
    async def everywhere(ctx: WorkflowContext) -> list[Any]:
        ctx.emit("first")
        await ctx.step.run("body", in_body, ctx)
        ctx.emit({"between": [None, 1.5, True, "ü\u0000"]})
        done = await ctx.step.run("thread", in_thread, ctx)
        await ctx.emit("last")
        return [done]

    handle = await everywhere.invoke(client)
    chunks = await whole(client, handle.id)
    assert await handle.result() == ["done"]
    assert [(chunk.step_key, chunk.data) for chunk in chunks] == [
        (None, "first"),
        ("body", {"text": "in a body"}),
        (None, {"between": [None, 1.5, True, "ü\u0000"]}),
        *(("thread", n) for n in range(200)),
        (None, "last"),
    ]
    offsets = [chunk.offset for chunk in chunks]
    assert offsets == sorted(set(offsets))
    assert {chunk.type for chunk in chunks} == {"chunk"}
    assert [chunk.at for chunk in chunks] == sorted(chunk.at for chunk in chunks)


async def test_a_plain_workflow_emits_too(client: PolosClient) -> None:
    @workflow(id="plain")
    def plain(ctx: WorkflowContext) -> Any:
        for n in range(300):
            ctx.emit(n)
        told = ctx.step.stream("s", count_to, 3)
        ctx.emit("end")
        return told

    handle = await plain.invoke(client)
    assert await data(client, handle.id) == [*range(300), 0, 1, 2, "end"]
    assert await handle.result() == [0, 1, 2]


async def test_a_chunk_is_taken_as_it_was_when_it_was_emitted(client: PolosClient) -> None:
    @workflow(id="changes")
    async def changes(ctx: WorkflowContext) -> None:
        progress = {"n": 0}
        for n in range(3):
            progress["n"] = n
            ctx.emit(progress)

    handle = await changes.invoke(client)
    assert await data(client, handle.id) == [{"n": 0}, {"n": 1}, {"n": 2}]


DEEP = functools.reduce(lambda inner, _: [inner], range(96), ["deeper than readers can read"])


@pytest.mark.parametrize("value", [b"x", object(), float("nan"), [{1: object()}], "\ud800", DEEP])
async def test_what_is_no_json_is_refused_and_nothing_is_streamed(value: Any) -> None:
    @workflow(id="refused")
    async def refused(ctx: WorkflowContext) -> str:
        try:
            ctx.emit(value)
        except EncodeError as error:
            return str(error)
        return "?"

    async def bad() -> AsyncIterator[Any]:
        yield 1
        yield value

    @workflow(id="refused_in_step")
    async def refused_in_step(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.stream("s", bad)
        except StepExecutionError as error:
            return str(error)
        return "?"

    async with PolosClient("sqlite://") as client:
        handle = await refused.invoke(client)
        assert (await handle.result()).startswith("a chunk")
        assert await whole(client, handle.id) == []
        handle = await refused_in_step.invoke(client)
        assert "a chunk of step 's'" in await handle.result()
        assert await data(client, handle.id) == [1]  # tried once: no retry makes JSON of it


async def test_a_context_built_by_hand_says_that_it_streams_nowhere() -> None:
    with pytest.raises(UsageError, match=r"ctx\.emit"):
        WorkflowContext("w", "e").emit(1)


async def test_chunks_of_16_kb_and_awaited_ones_come_whole(client: PolosClient) -> None:
    text = "x" * 16_384

    @workflow(id="large")
    async def large(ctx: WorkflowContext) -> None:
        for n in range(300):
            await ctx.emit([n, text])

    handle = await large.invoke(client)
    assert await data(client, handle.id) == [[n, text] for n in range(300)]


async def test_an_emit_is_durable_with_the_next_record_at_the_latest(tmp_path: Path) -> None:
    at_hand: list[tuple[int, ...]] = []

    @workflow(id="rides")
    async def rides(ctx: WorkflowContext) -> None:
        for n in range(20):
            ctx.emit(n)
            await ctx.step.run(f"s{n}", bool)
            store = simulation.store
            seen = await store.last_seqs([stream_topic(ctx.execution_id, ctx.execution_id)])
            at_hand.append((n + 1, *seen.values()))

    async with Simulation(str(tmp_path / "polos.db")) as simulation:
        before = simulation.store.commits
        await rides(simulation.client)
        commits = simulation.store.commits - before
    assert all(emitted == durable for emitted, durable in at_hand)
    assert commits <= 23  # start, one for each step, the end: none for a chunk


async def test_chunks_gather_in_few_commits(tmp_path: Path) -> None:
    @workflow(id="many")
    async def many(ctx: WorkflowContext) -> None:
        for n in range(5000):
            await ctx.emit(n)

    async with PolosClient(f"sqlite:///{tmp_path / 'polos.db'}") as client:
        store = (await client.node()).engine.store
        before = store.commits
        handle = await many.invoke(client)
        await handle.result()
        assert store.commits - before < 500
        assert await data(client, handle.id) == list(range(5000))


async def test_durable_waits_until_readers_can_see_it(client: PolosClient) -> None:
    seen: list[int] = []

    @workflow(id="durable")
    async def durable(ctx: WorkflowContext) -> None:
        topic = stream_topic(ctx.execution_id, ctx.execution_id)
        engine = (await client.node()).engine
        for n in range(5):
            await ctx.emit(n).durable()
            seen.append((await engine.topics.last_seqs([topic]))[topic])

    await durable(client)
    assert seen == [1, 2, 3, 4, 5]


async def test_whoever_emits_too_much_waits_for_the_store() -> None:
    """With a store that stands still, what is on its way is bounded."""
    emitted: list[int] = []
    begun, go = asyncio.Event(), asyncio.Event()

    @workflow(id="firehose")
    async def firehose(ctx: WorkflowContext) -> None:
        begun.set()
        await go.wait()
        for n in range(30_000):
            await ctx.emit(n)
            emitted.append(n)

    async with by_hand() as simulation:
        engine, held = simulation.node.engine, list[Any]()
        handle = await firehose.invoke(simulation.client)
        await begun.wait()
        submit, commit_now = engine.submit, engine.commit_now

        def hold(command: Command) -> None:
            held.append(command)

        def refuse(command: Command) -> bool:
            return False

        engine.submit, engine.commit_now = hold, refuse
        go.set()
        await turns(3000)
        assert 10_000 <= len(emitted) <= 10_100
        engine.submit, engine.commit_now = submit, commit_now
        for command in held:
            submit(command)
        await until(lambda: len(emitted) == 30_000)
        assert await data(simulation.client, handle.id) == list(range(30_000))


# -- steps that stream ----------------------------------------------------------------------------


async def test_the_chunks_of_a_step_are_its_result(client: PolosClient) -> None:
    async def words() -> AsyncIterator[Word]:
        for text in ("a", "b"):
            yield Word(text=text)

    def plain(count: int, *, start: int = 0) -> Iterator[int]:
        yield from range(start, start + count)

    async def returns_it() -> AsyncIterator[int]:
        return count_to(2)

    async def add(chunks: list[int]) -> int:
        return sum(chunks)

    @workflow(id="steps")
    async def steps(ctx: WorkflowContext) -> list[Any]:
        return [
            await ctx.step.stream("words", words),
            await ctx.step.stream("plain", plain, 3, start=5),
            await ctx.step.stream("sum", plain, 3, collect=sum),
            await ctx.step.stream("async sum", count_to, 4, collect=add),
            await ctx.step.stream("none", count_to, 0),
            await ctx.step.stream("returned", returns_it),
            await ctx.step.stream("lambda", lambda: count_to(1)),
            await ctx.step.stream("lambda", lambda: iter([7])),
        ]

    handle = await steps.invoke(client)
    assert await handle.result() == [
        *([Word(text="a"), Word(text="b")], [5, 6, 7], 3, 6, [], [0, 1], [0], [7])
    ]
    assert await data(client, handle.id, step_key="words") == [{"text": "a"}, {"text": "b"}]
    assert await data(client, handle.id, step_key="lambda#2") == [7]
    assert await data(client, handle.id, step_key="none") == []
    found = {step["step_key"]: step["kind"] for step in await client.get_steps(handle.id)}
    assert set(found.values()) == {"stream"}


async def test_a_failed_body_starts_again_behind_a_reset(client: PolosClient) -> None:
    tries: list[int] = []

    async def flaky() -> AsyncIterator[int]:
        tries.append(1)
        yield len(tries)
        if len(tries) < 3:
            raise ValueError("no")
        yield 100

    async def flaky_body(ctx: WorkflowContext) -> str:
        tries.append(1)
        ctx.emit(len(tries))
        if len(tries) < 2:
            raise ValueError("no")
        return "ok"

    @workflow(id="flaky")
    async def code(ctx: WorkflowContext) -> Any:
        first = await ctx.step.stream("s", flaky, base_delay=0)
        tries.clear()
        return [first, await ctx.step.run("r", flaky_body, ctx, base_delay=0)]

    handle = await code.invoke(client)
    assert await data(client, handle.id) == [1, "RESET", 2, "RESET", 3, 100, 1, "RESET", 2]
    assert await handle.result() == [[3, 100], "ok"]
    marks = [chunk for chunk in await whole(client, handle.id) if chunk.type == "reset"]
    assert [(mark.step_key, mark.data) for mark in marks] == [("s", None), ("s", None), ("r", None)]


async def test_a_step_that_fails_for_good_ends_its_stream(client: PolosClient) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    @workflow(id="broken")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.stream("s", broken, max_retries=0)

    handle = await code.invoke(client)
    assert await data(client, handle.id, step_key="s") == [1]
    assert await data(client, handle.id) == [1]
    with pytest.raises(ExecutionFailedError, match="broken"):
        await handle.result()
    await client.retry_execution(handle.id)
    with contextlib.suppress(ExecutionFailedError):
        await handle.result()
    assert await data(client, handle.id) == [1, "RESET", 1]


async def test_a_body_in_a_thread_that_was_given_up_streams_nothing_more() -> None:
    go, over = threading.Event(), threading.Event()
    tries: list[int] = []

    def slow(ctx: WorkflowContext) -> str:
        tries.append(1)
        mine = len(tries)
        if mine == 1:
            go.wait(20)
            try:
                for _ in range(200):
                    ctx.emit("late")
            finally:
                over.set()
        ctx.emit("second")
        go.set()
        over.wait(20)
        return "ok"

    @workflow(id="slow")
    async def code(ctx: WorkflowContext) -> str:
        return await ctx.step.run("s", slow, ctx, timeout=0.05, base_delay=0, max_retries=50)

    async with PolosClient("sqlite://") as client:
        handle = await code.invoke(client)
        assert await handle.result() == "ok"
        assert "late" not in await data(client, handle.id)


async def test_what_streams_nothing_is_refused_and_not_tried_again() -> None:
    tries: list[int] = []

    def no_generator() -> list[int]:
        tries.append(1)
        return [1]

    @workflow(id="wrong")
    async def code(ctx: WorkflowContext) -> list[str]:
        found: list[str] = []
        for n, given in enumerate((no_generator, count_to(1), 5)):
            try:
                await ctx.step.stream(f"s{n}", given)  # type: ignore[arg-type]
            except (UsageError, StepExecutionError) as error:
                found.append(str(error))
        return found

    async with PolosClient("sqlite://") as client:
        first, second, third = await code(client)
    assert "returned list" in first
    assert "without calling it" in second
    assert "pass the function itself" in third
    assert tries == [1]


# -- replay and takeover --------------------------------------------------------------------------


async def test_replay_streams_nothing_twice() -> None:
    ran: list[str] = []

    @workflow(id="replayed")
    async def code(ctx: WorkflowContext) -> list[int]:
        async def noted() -> AsyncIterator[int]:
            ran.append("s")
            yield 1
            yield 2

        ctx.emit("a")
        chunks = await ctx.step.stream("s", noted)
        ctx.emit("b")
        await ctx.step.wait_for("w", hours=1)
        ctx.emit("c")
        return chunks

    async with Simulation(parked_max=0) as simulation:
        handle = await code.invoke(simulation.client)
        assert await handle.result() == [1, 2]
        assert await data(simulation.client, handle.id) == ["a", 1, 2, "b", "c"]
    assert ran == ["s"]


async def test_a_zombie_streams_nothing() -> None:
    let_go, ran = asyncio.Event(), list[int]()

    @workflow(id="zombie")
    async def code(ctx: WorkflowContext) -> str:
        async def body() -> AsyncIterator[str]:
            ran.append(1)
            mine = len(ran)
            yield f"life {mine}"
            if mine == 1:
                await let_go.wait()
            yield f"life {mine} goes on"

        ctx.emit("begin")
        await ctx.step.stream("s", body)
        return "done"

    database = MemoryDatabase()
    async with by_hand(database=database) as zombie:
        handle = await code.invoke(zombie.client)
        await until(lambda: ran)
        zombie.clock.advance(0.01)
        await turns()
        zombie.store.liveness.die()
        async with Simulation(database=database, clock=zombie.clock) as second:
            await second.node.runner.verify()
            await turns(100)
            assert await second.client.get_handle(handle.id).result() == "done"
            let_go.set()
            await turns(100)
            zombie.clock.advance(1.0)
            await turns(100)
            assert await data(second.client, handle.id) == [
                *("begin", "life 1", "RESET", "life 2", "life 2 goes on")
            ]


async def test_code_that_only_waits_may_emit_from_a_task_beside() -> None:
    tick = asyncio.Event()

    @workflow(id="beside")
    async def code(ctx: WorkflowContext) -> None:
        async def ticking() -> None:
            await tick.wait()
            ctx.emit("tick")

        beside = asyncio.create_task(ticking())
        await ctx.step.wait_for("w", hours=1)
        await beside

    async with by_hand() as simulation:
        handle = await code.invoke(simulation.client)
        await until(lambda: simulation.node.runner.active == 0)
        tick.set()
        await turns()
        simulation.clock.advance(0.01)
        await turns(200)
        stream = simulation.client.stream(handle.id)
        assert (await anext(stream)).data == "tick"
        await stream.aclose()


# -- reading --------------------------------------------------------------------------------------


async def test_chunks_are_live_and_a_reader_goes_on_from_an_offset(opened: Open) -> None:
    """Each chunk is read before the next is made: by a reader here, and by another client."""
    here, elsewhere = await opened(), await opened()
    read = asyncio.Queue[int]()

    @workflow(id="live")
    async def live(ctx: WorkflowContext) -> None:
        async def slowly() -> AsyncIterator[int]:
            for n in range(4):
                yield n
                assert await read.get() == n
                assert await read.get() == n

        await ctx.step.stream("s", slowly)

    handle = await live.invoke(here)
    streams = [handle.stream(), elsewhere.get_handle(handle.id).stream()]
    first: list[list[Chunk]] = [[], []]
    for n in range(4):
        for stream, seen in zip(streams, first, strict=True):
            seen.append(await anext(stream))
            read.put_nowait(n)
    assert first[0] == first[1]
    assert [[chunk async for chunk in stream] for stream in streams] == [[], []]
    for client in (here, elsewhere):
        rest = await whole(client, handle.id, offset=first[0][1].offset)
        assert rest == first[0][2:]
        assert await whole(client, handle.id, offset=1000) == []


async def test_a_stream_of_one_step_ends_with_the_step(client: PolosClient) -> None:
    go = asyncio.Event()

    @workflow(id="two")
    async def two(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.step.stream("a", count_to, 3), ctx.step.stream("b", count_to, 2))
        await ctx.step.run("wait", go.wait)

    handle = await two.invoke(client)
    assert await data(client, handle.id, step_key="a") == [0, 1, 2]
    assert await data(client, handle.id, step_key="b") == [0, 1]
    go.set()
    await handle.result()
    assert await data(client, handle.id, step_key="c") == []


async def test_a_slow_reader_costs_nobody_and_misses_nothing(client: PolosClient) -> None:
    @workflow(id="fast")
    async def fast(ctx: WorkflowContext) -> None:
        for n in range(30_000):
            await ctx.emit(n)

    handle = await fast.invoke(client)
    slow = handle.stream()
    seen = [(await anext(slow)).data]
    quick = await data(client, handle.id)
    await handle.result()
    seen += [chunk.data async for chunk in slow]
    assert quick == seen == list(range(30_000))


async def test_a_stream_ends_with_its_execution_however_that_ends(client: PolosClient) -> None:
    begun = asyncio.Event()

    @workflow(id="cancelled")
    async def cancelled(ctx: WorkflowContext) -> None:
        async def endless() -> AsyncIterator[str]:
            yield "a"
            begun.set()
            await asyncio.Event().wait()

        await ctx.step.stream("s", endless)

    handle = await cancelled.invoke(client)
    reading = asyncio.create_task(data(client, handle.id))
    await begun.wait()
    await handle.cancel()
    assert await reading == ["a"]
    with pytest.raises(ExecutionNotFoundError):
        await data(client, "nobody")


@pytest.mark.parametrize(
    "options",
    [{"offset": -1}, {"offset": "1"}, {"offset": None}, {"step_key": ""}, {"step_key": 5}],
)
async def test_a_bad_question_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        PolosClient("sqlite://").stream("e", **options)
    with pytest.raises(UsageError):
        PolosClient("sqlite://").stream("")


async def test_children_have_streams_of_their_own_on_topics_of_the_tree(
    client: PolosClient,
) -> None:
    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> str:
        ctx.emit("child")
        return ctx.execution_id

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        ctx.emit("parent")
        return await ctx.step.invoke_and_wait("c", child)

    handle = await parent.invoke(client)
    child_id = await handle.result()
    assert await data(client, handle.id) == ["parent"]
    assert await data(client, child_id) == ["child"]
    topic = stream_topic(handle.id, child_id)
    (event,) = await events.read(client, topic)
    assert (event.event_type, event.data) == ("chunk", {"step_key": None, "data": "child"})


async def test_streams_are_removed_with_their_tree(client: PolosClient) -> None:
    @workflow(id="leaf")
    async def leaf(ctx: WorkflowContext) -> None:
        ctx.emit("leaf")

    @workflow(id="tree")
    async def tree(ctx: WorkflowContext) -> None:
        ctx.emit("tree")
        await ctx.step.invoke_and_wait("c", leaf)

    first, second = await tree.invoke(client), await tree.invoke(client)
    await first.result()
    await second.result()
    engine = (await client.node()).engine
    removed = await engine.store.prune([first.id], 1 << 60)
    assert removed.trees == 1
    left = [topic.name for topic in await engine.topics.topics()]
    assert len(left) == 2
    assert all(name.startswith(stream_topic(second.id, "")) for name in left)
    with pytest.raises(ExecutionNotFoundError):
        await data(client, first.id)


async def test_what_a_thread_hands_over_while_the_loop_stands_still_is_not_lost() -> None:
    def say(ctx: WorkflowContext, what: str) -> None:
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(lambda: [ctx.emit(f"{what} {n}") for n in range(3)],),
        )
        thread.start()
        thread.join()  # on the event loop: bad manners

    @workflow(id="blocks")
    async def blocks(ctx: WorkflowContext) -> None:
        async def body() -> None:
            say(ctx, "body")

        await ctx.step.run("s", body)
        say(ctx, "code")

    async with PolosClient("sqlite://") as client:
        handle = await blocks.invoke(client)
        chunks = await whole(client, handle.id)
    assert [(chunk.step_key, chunk.data) for chunk in chunks] == [
        *(("s", f"body {n}") for n in range(3)),
        *((None, f"code {n}") for n in range(3)),
    ]
