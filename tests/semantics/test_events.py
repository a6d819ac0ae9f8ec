"""DESIGN §2.9: events are seen in commit order, none is skipped, on every store."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polos import (
    BatchEventPayload,
    EventPayload,
    ExecutionFailedError,
    PolosClient,
    StepExecutionError,
    WaitTimeoutError,
    WorkflowContext,
    events,
    workflow,
)
from polos.errors import EncodeError, ExecutionNotFoundError, UsageError
from polos.testing import Simulation
from tests.semantics.conftest import Open


def nested(levels: int) -> dict[str, Any]:
    data: dict[str, Any] = {"d": 1}
    for _ in range(levels - 1):
        data = {"d": data}
    return data


async def say(client: PolosClient, topic: str, *numbers: int) -> list[int]:
    return await events.batch_publish(client, topic, [{"data": {"n": n}} for n in numbers])


async def take(stream: events.EventStream, count: int) -> list[int]:
    return [(await anext(stream)).data["n"] for _ in range(count)]


# -- reading --------------------------------------------------------------------------------------


async def test_2_9_a_reader_sees_what_is_published_after_its_call(client: PolosClient) -> None:
    await say(client, "t", 1)
    stream = events.stream_topic(client, "t")
    assert await say(client, "t", 2, 3) == [2, 3]
    assert await take(stream, 2) == [2, 3]


async def test_2_9_a_reader_of_a_client_that_is_not_open_yet_misses_nothing(
    tmp_path: Path,
) -> None:
    client = PolosClient(f"sqlite:///{tmp_path / 'polos.db'}")
    stream = events.stream_topic(client, "t")
    await say(client, "t", 1)
    assert await take(stream, 1) == [1]
    await client.close()


async def test_2_9_a_number_and_a_time_are_cursors(client: PolosClient) -> None:
    await say(client, "t", 1, 2, 3)
    assert await take(events.stream_topic(client, "t", last_sequence_id=1), 2) == [2, 3]
    assert await take(events.subscribe(client, "t", after=0), 3) == [1, 2, 3]
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    assert await take(events.stream_topic(client, "t", last_timestamp=long_ago), 3) == [1, 2, 3]
    assert await take(events.subscribe(client, "t", after=long_ago), 1) == [1]


async def test_2_9_readers_one_after_the_other_neither_miss_nor_repeat(client: PolosClient) -> None:
    seen: list[int] = []
    stream = events.stream_topic(client, "t")  # the variable holds on to each one
    for _ in range(5):
        await say(client, "t", len(seen), len(seen) + 1)
        async for event in stream:
            seen.append(event.data["n"])
            break
        stream = events.stream_topic(client, "t")
    await stream.aclose()
    gc.collect()
    rest = await take(events.stream_topic(client, "t"), 5)
    everything = [event.data["n"] for event in await events.read(client, "t")]
    assert seen + rest == everything


async def test_2_9_readers_side_by_side_each_see_all(client: PolosClient) -> None:
    begun = asyncio.Barrier(4)

    async def read() -> list[int]:
        stream = events.stream_topic(client, "t")
        await begun.wait()
        return await take(stream, 50)

    readers = [asyncio.create_task(read()) for _ in range(3)]
    await begun.wait()
    for n in range(50):
        await say(client, "t", n)
    assert await asyncio.gather(*readers) == [list(range(50))] * 3


async def test_2_9_a_slow_reader_costs_the_others_nothing_and_misses_nothing(
    client: PolosClient,
) -> None:
    slow = events.stream_topic(client, "t")
    quick = events.stream_topic(client, "t")
    first = asyncio.create_task(take(slow, 1))
    await say(client, "t", 0)
    await first
    for n in range(1, 3000, 100):
        await say(client, "t", *range(n, n + 100))
    assert await take(quick, 3000) == list(range(3000))
    assert slow._reader.held <= 1000  # what it has no room for stays in the store
    assert await take(slow, 2999) == list(range(1, 3000))


async def test_2_9_another_process_s_events_come_in_order(opened: Open) -> None:
    here, there = await opened(), await opened()
    stream = events.subscribe(here, "t", after=0)
    reading = asyncio.create_task(take(stream, 40))

    async def publish(client: PolosClient, begin: int) -> None:
        for n in range(begin, begin + 20):
            await say(client, "t", n)

    await asyncio.gather(publish(here, 0), publish(there, 100))
    seen = await reading
    assert sorted(seen) == [*range(20), *range(100, 120)]
    assert [n for n in seen if n < 100] == list(range(20))
    assert [event.sequence_id for event in await events.read(here, "t")] == list(range(1, 41))


async def test_2_9_closing_the_client_tells_who_reads(client: PolosClient) -> None:
    reading = asyncio.create_task(take(events.stream_topic(client, "t"), 1))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(Exception, match="closed"):
        await reading


@pytest.mark.parametrize("topic", ["", "a\0b", "\ud800", "x" * 1025, None, 7])
async def test_a_bad_topic_is_refused_before_anything_is_stored(topic: Any) -> None:
    client = PolosClient("sqlite://")
    with pytest.raises(UsageError, match="topic"):
        await events.publish(client, topic, events.EventData(data={}))
    with pytest.raises(UsageError, match="topic"):
        events.stream_topic(client, topic)


@pytest.mark.parametrize(
    "data",
    [
        {"a": float("nan")},
        {"a": object()},
        {"a": "\ud800"},
        {"1": {"2": float("inf")}},
        nested(97),
    ],
)
async def test_data_that_are_no_json_are_refused(data: Any) -> None:
    client = PolosClient("sqlite://")
    with pytest.raises(EncodeError):
        await events.publish(client, "t", events.EventData(data=data))
    assert await events.list_topics(client) == []
    await client.close()


async def test_what_is_accepted_is_read_and_waited_for_and_triggers(
    client: PolosClient,
) -> None:
    deep = nested(96)
    batches: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @workflow(id="deep_waits")
    async def deep_waits(ctx: WorkflowContext) -> Any:
        return (await ctx.step.wait_for_event("e", "t")).data

    @workflow(id="deep_batch", trigger_on_event="t", batch_size=1)
    async def deep_batch(ctx: WorkflowContext, given: BatchEventPayload) -> None:
        batches.set_result(given.events[0].data)

    handle = await deep_waits.invoke(client)
    await reached(client, handle.id, "e")
    await events.publish(client, "t", {"data": deep})
    assert [event.data for event in await events.read(client, "t")] == [deep]
    assert await handle.result() == deep
    assert await batches == deep


@pytest.mark.parametrize("given", [{"data": [1]}, {}, {"event_type": 3, "data": {}}, 5, "x"])
async def test_what_is_no_event_is_refused(given: Any) -> None:
    client = PolosClient("sqlite://")
    with pytest.raises(UsageError):
        await events.publish(client, "t", given)
    with pytest.raises(UsageError):
        await events.batch_publish(client, "t", [{"data": {}}, given])
    assert await events.batch_publish(client, "t", []) == []
    assert await events.list_topics(client) == []
    await client.close()


# -- what executions tell -------------------------------------------------------------------------


async def test_2_9_an_execution_tells_what_happens_in_it_and_its_children(
    client: PolosClient,
) -> None:
    @workflow(id="child")
    async def child(ctx: WorkflowContext) -> int:
        return await ctx.step.run("inner", lambda: 1)

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext, name: str) -> int:
        await ctx.step.publish_workflow_event("hello", {"hi": name}, event_type="greeting")
        return await ctx.step.invoke_and_wait("call", child)

    handle = await parent.invoke(client, "x")
    seen = [event async for event in events.stream_workflow(client, "parent", handle.id)]
    # Each execution tells in the order of its journal; between executions time decides.
    alone = ["workflow_start", "step_start", "step_finish", "workflow_finish"]
    by_child = [e for e in seen if e.data.get("_metadata", {}).get("execution_id") != handle.id]
    inner = [e.event_type for e in by_child if e.event_type != "greeting"]
    assert inner == alone
    outer = [e.event_type for e in seen if e not in by_child or e.event_type == "greeting"]
    assert outer == ["workflow_start", "greeting", *alone[1:]]
    assert [event.sequence_id for event in seen] == list(range(1, 10))
    assert seen[0].data["payload"] == "x"
    assert seen[1].data == {"hi": "x"}
    assert [e.data["step_key"] for e in by_child if e.event_type == "step_finish"] == ["inner"]
    assert seen[-1].data["result"] == 1
    own = {"execution_id": handle.id, "workflow_id": "parent"}
    assert seen[-1].data["_metadata"] == own
    # Read again it is the same, from wherever one goes on.
    again = [e async for e in events.stream_workflow(client, "parent", handle.id, 4)]
    assert again == seen[4:]


async def test_2_9_a_stream_that_was_left_goes_on_where_it_was(client: PolosClient) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    @workflow(id="gated")
    async def gated(ctx: WorkflowContext) -> None:
        for n, gate in enumerate(gates):
            await ctx.step.publish_workflow_event(f"ask {n}", {"n": n}, event_type=f"ask_{n}")
            await ctx.step.run(f"gate {n}", gate.wait)

    handle = await gated.invoke(client)
    asked: list[int] = []
    for gate in gates:
        async for event in events.stream_workflow(client, "gated", handle.id):
            if (event.event_type or "").startswith("ask_"):
                asked.append(event.data["n"])
                break
        gate.set()
    rest = [e.event_type async for e in events.stream_workflow(client, "gated", handle.id)]
    assert asked == [0, 1]
    assert rest[-1] == "workflow_finish"
    assert "ask_1" not in rest


async def test_2_9_failure_and_cancellation_end_a_stream(client: PolosClient) -> None:
    @workflow(id="fails")
    async def fails(ctx: WorkflowContext) -> None:
        raise ValueError("no")

    @workflow(id="waits")
    async def waits(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("w", hours=1)

    failing = await fails.invoke(client)
    seen = [event async for event in events.stream_workflow(client, "fails", failing.id)]
    assert seen[-1].event_type == "workflow_failed"
    assert seen[-1].data["error"] == "no"
    waiting = await waits.invoke(client)
    async for event in events.stream_workflow(client, "waits", waiting.id):
        last = event.event_type
        if event.event_type == "step_start":
            await client.cancel_execution(waiting.id)
    assert last == "workflow_cancelled"
    with pytest.raises(ExecutionNotFoundError):
        await anext(events.stream_workflow(client, "waits", "nobody"))


async def test_the_ids_of_an_execution_that_is_no_root_are_refused(client: PolosClient) -> None:
    @workflow(id="kid")
    async def kid(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("nap", days=1)

    @workflow(id="dad")
    async def dad(ctx: WorkflowContext) -> str:
        child = await ctx.step.invoke("start", kid, None)
        await ctx.step.publish_workflow_event("told", {"child": child.id})
        return child.id

    handle = await dad.invoke(client)
    with pytest.raises(UsageError, match="'dad'"):
        await anext(events.stream_workflow(client, "other", handle.id))
    with pytest.raises(UsageError, match=handle.id):
        await anext(events.stream_workflow(client, "kid", await handle.result()))


async def test_2_9_an_execution_elsewhere_is_read_too(opened: Open) -> None:
    here, there = await opened(), await opened()
    gate = asyncio.Event()

    @workflow(id="elsewhere")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("gate", gate.wait)

    handle = await code.invoke(there)
    seen: list[str | None] = []
    async for event in events.stream_workflow(here, "elsewhere", handle.id):
        seen.append(event.event_type)
        gate.set()
    assert seen == ["workflow_start", "step_start", "step_finish", "workflow_finish"]


async def test_2_9_who_reads_elsewhere_is_rung(opened: Open) -> None:
    """Where no bell is lost, nothing has to be looked for."""
    here, there = await opened(), await opened()
    topics = (await here.node()).engine.topics
    if not topics.sees_others:
        topics.poll_seconds = 3600.0
    gates = [asyncio.Event() for _ in range(3)]

    @workflow(id="rings_kid")
    async def kid(ctx: WorkflowContext) -> None:
        await ctx.step.run("gate", gates[1].wait)

    @workflow(id="rings")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("gate", gates[0].wait)
        await ctx.step.invoke_and_wait("kid", kid)
        await ctx.step.suspend("ask")
        await ctx.step.run("last", gates[2].wait)

    handle = await code.invoke(there)
    seen: list[str | None] = []
    async with asyncio.timeout(30):
        async for event in events.stream_workflow(here, "rings", handle.id):
            seen.append(event.event_type)
            if event.event_type == "suspend_ask":
                await handle.resume("ask", {})
            elif event.event_type != "workflow_finish":
                gates[min(seen.count("step_finish"), 2)].set()
    assert seen.count("workflow_finish") == 2
    assert seen[-4:] == ["resume_ask", "step_start", "step_finish", "workflow_finish"]


async def test_2_9_a_run_that_continues_as_new_tells_on(client: PolosClient) -> None:
    @workflow(id="generations")
    async def code(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.run("one", lambda: n)
        await ctx.step.publish_workflow_event("said", {"n": n})
        await ctx.step.suspend("ask", {"n": n})
        if n < 3:
            ctx.continue_as_new(n + 1)
        return n

    handle = await code.invoke(client, 1)
    seen: list[Any] = []
    ids: set[str] = set()
    async for event in events.stream_workflow(client, "generations", handle.id):
        seen.append((event.event_type, event.data.get("n")) if "n" in event.data else None)
        ids.add(event.id)
        if event.event_type == "suspend_ask":
            await handle.resume("ask", {})
    assert [each for each in seen if each is not None] == [
        each for n in (1, 2, 3) for each in ((None, n), ("suspend_ask", n))
    ]
    assert len(ids) == len(seen)


async def told(client: PolosClient, workflow_id: str, execution_id: str) -> list[Any]:
    """Return what the topic of a tree has, read when all is over, in short."""
    found = await events.read(client, f"workflow/{workflow_id}/{execution_id}", limit=500)
    assert [event.sequence_id for event in found] == list(range(1, len(found) + 1))
    assert len({event.id for event in found}) == len(found)
    shown: list[Any] = []
    for each in found:
        data = each.data or {}
        shown.append((each.event_type or "", data.get("step_key", data.get("payload", data))))
        if each.event_type == "workflow_finish":
            shown[-1] = ("workflow_finish", data["result"])
    return shown


async def test_2_9_what_earlier_runs_told_is_there_though_nobody_read(client: PolosClient) -> None:
    @workflow(id="kept_kid")
    async def kid(ctx: WorkflowContext, n: int) -> int:
        if not ctx.generation:
            await ctx.step.publish_workflow_event("kid", {"kid": n}, event_type="kid")
            ctx.continue_as_new(n + 10)
        return n

    @workflow(id="kept")
    async def code(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.publish_workflow_event("say", {"n": n}, event_type="said")
        await ctx.step.run("one", lambda: n)
        await ctx.step.invoke_and_wait("kid", kid, n)
        if n < 3:
            ctx.continue_as_new(n + 1)
        return n

    handle = await code.invoke(client, 1)
    await handle.result()
    seen = await told(client, "kept", handle.id)
    own = [each for each in seen if each[0] in {"said", "workflow_start", "workflow_finish"}]
    assert [each for each in own if each[0] == "said"] == [("said", {"n": n}) for n in (1, 2, 3)]
    assert [each for each in own if each[0] == "workflow_start"] == [
        ("workflow_start", n) for n in (1, 1, 2, 3)
    ]
    assert [each for each in own if each[0] == "workflow_finish"] == [
        ("workflow_finish", n) for n in (11, 12, 13, 3)
    ]
    assert [each for each in seen if each[0] == "kid"] == [("kid", {"kid": n}) for n in (1, 2, 3)]
    for what in ("step_start", "step_finish"):
        steps = [each[1] for each in seen if each[0] == what]
        assert steps == ["one", "kid"] * 3


async def test_2_9_a_run_that_only_continues_has_begun(client: PolosClient) -> None:
    @workflow(id="at once")
    async def code(ctx: WorkflowContext, n: int) -> int:
        if n < 3:
            ctx.continue_as_new(n + 1)
        return n

    handle = await code.invoke(client, 1)
    await handle.result()
    assert await told(client, "at once", handle.id) == [
        ("workflow_start", 1),
        ("workflow_finish", 3),
    ]


async def test_2_9_who_waits_for_what_a_run_tells_hears_it_from_its_last_commit(
    opened: Open,
) -> None:
    client = await opened()

    @workflow(id="waits_for_runs")
    async def waits(ctx: WorkflowContext, topic: str) -> Any:
        got = await ctx.step.wait_for_event("got", topic, filter={"event_type": "said"})
        return got.data

    gate = asyncio.Event()

    @workflow(id="runs_on")
    async def code(ctx: WorkflowContext, n: int) -> int:
        await ctx.step.run("gate", gate.wait)
        await ctx.step.publish_workflow_event("say", {"n": n}, event_type="said")
        if n < 3:
            ctx.continue_as_new(n + 1)
        return n

    handle = await code.invoke(client, 1)
    waiting = await waits.invoke(client, f"workflow/runs_on/{handle.id}")
    await reached(client, waiting.id, "got")
    gate.set()
    assert await handle.result() == 3
    assert await waiting.result() == {"n": 1}


async def test_2_9_what_a_retry_cuts_off_is_told_though_nobody_read(client: PolosClient) -> None:
    good: list[bool] = []

    def body() -> str:
        if not good:
            raise ValueError("not yet")
        return "now"

    @workflow(id="again_unread")
    async def again(ctx: WorkflowContext) -> str:
        return await ctx.step.run("try", body, max_retries=0)

    handle = await again.invoke(client)
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    good.append(True)
    handle = await client.retry_execution(handle.id)
    assert await handle.result() == "now"
    assert [each[0] for each in await told(client, "again_unread", handle.id)] == [
        "workflow_start",
        *("step_start", "step_finish", "workflow_failed"),
        *("step_start", "step_finish", "workflow_finish"),
    ]


async def test_2_9_what_a_reset_cuts_off_is_told_though_nobody_read(client: PolosClient) -> None:
    @workflow(id="cut_unread")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("before", lambda: 0)
        await ctx.step.publish_workflow_event("say", {"n": 1}, event_type="said")

    handle = await code.invoke(client)
    await handle.result()
    await handle.reset(to_step="before")
    await handle.result()
    seen = [each[0] for each in await told(client, "cut_unread", handle.id)]
    cut = ["said", "workflow_finish"]
    assert seen == ["workflow_start", "step_start", "step_finish", *cut, *cut]


async def test_2_9_a_reset_tells_on(client: PolosClient) -> None:
    runs: list[int] = []

    @workflow(id="reset")
    async def code(ctx: WorkflowContext) -> int:
        await ctx.step.run("before", lambda: 0)
        return await ctx.step.run("count", lambda: runs.append(1) or len(runs))

    handle = await code.invoke(client)
    first = [event async for event in events.stream_workflow(client, "reset", handle.id)]
    told: list[tuple[str | None, Any]] = []
    for count in (2, 3):
        await handle.reset(to_step="before")
        assert await handle.result() == count
        after = first[-1].sequence_id
        first = [e async for e in events.stream_workflow(client, "reset", handle.id, after)]
        assert [e.sequence_id for e in first] == list(range(after + 1, after + 1 + len(first)))
        told += [(e.event_type, e.data.get("result")) for e in first]
    assert told == [
        ("step_start", None),
        ("step_finish", 2),
        ("workflow_finish", 2),
        ("step_start", None),
        ("step_finish", 3),
        ("workflow_finish", 3),
    ]


async def test_2_9_what_a_reset_cuts_off_is_told_to_who_reads(client: PolosClient) -> None:
    @workflow(id="cut")
    async def code(ctx: WorkflowContext) -> None:
        await ctx.step.run("before", lambda: 0)
        await ctx.step.suspend("ask")

    handle = await code.invoke(client)
    stream = events.stream_workflow(client, "cut", handle.id)
    assert (await anext(stream)).event_type == "workflow_start"
    await handle.resume("ask", 1)
    await handle.result()
    await handle.reset(to_step="before")
    await handle.resume("ask", 2)
    await handle.result()
    asked = ["suspend_ask", "resume_ask"]
    seen = [event.event_type async for event in stream]
    assert seen == ["step_start", "step_finish", *asked, "workflow_finish"]
    more = await events.read(client, f"workflow/cut/{handle.id}", after=6)
    assert [(e.event_type, e.data) for e in more][:2] == [("suspend_ask", None), ("resume_ask", 2)]


async def test_2_9_a_retry_tells_on(client: PolosClient) -> None:
    good: list[bool] = []

    async def body() -> str:
        if not good:
            raise ValueError("not yet")
        return "now"

    @workflow(id="again")
    async def again(ctx: WorkflowContext) -> str:
        await ctx.step.run("before", lambda: 0)
        return await ctx.step.run("try", body, max_retries=0)

    handle = await again.invoke(client)
    seen = [event async for event in events.stream_workflow(client, "again", handle.id)]
    assert seen[-1].event_type == "workflow_failed"
    good.append(True)
    handle = await client.retry_execution(handle.id)
    assert await handle.result() == "now"
    after = seen[-1].sequence_id
    more = [e async for e in events.stream_workflow(client, "again", handle.id, after)]
    assert [(e.event_type, e.data.get("step_key")) for e in more] == [
        ("step_start", "try"),
        ("step_finish", "try"),
        ("workflow_finish", None),
    ]


# -- waiting --------------------------------------------------------------------------------------


async def reached(client: PolosClient, execution_id: str, key: str) -> None:
    """Return once an execution waits at a step."""
    workflow_id = (await client.get_execution(execution_id))["workflow_id"]
    stream = events.stream_workflow(client, workflow_id, execution_id, 0)
    async for event in stream:
        if event.event_type == "step_start" and event.data["step_key"] == key:
            return
    raise AssertionError(f"{key} was not reached")


async def test_2_9_code_waits_for_an_event(client: PolosClient) -> None:
    @workflow(id="waiter")
    async def waiter(ctx: WorkflowContext) -> list[Any]:
        first = await ctx.step.wait_for_event("first", "t")
        big = await ctx.step.wait_for_event("big", "t", filter={"n": (">", 5)})
        even = await ctx.step.wait_for_event("even", "t", filter=lambda e: e.data["n"] % 2 == 0)
        assert isinstance(first, EventPayload)
        return [e.data["n"] for e in (first, big, even)]

    await say(client, "t", 100)
    handle = await waiter.invoke(client)
    await reached(client, handle.id, "first")
    await say(client, "t", 1, 9)
    await reached(client, handle.id, "big")
    await say(client, "t", 2, 7, 8)
    await reached(client, handle.id, "even")
    await say(client, "t", 3, 5)
    await say(client, "t", 7, 10, 12)
    assert await handle.result() == [1, 7, 10]


async def test_2_9_an_event_of_another_process_wakes_code(opened: Open) -> None:
    here, there = await opened(), await opened()

    @workflow(id="waiter")
    async def waiter(ctx: WorkflowContext) -> Any:
        return (await ctx.step.wait_for_event("e", "t", filter={"event_type": "go"})).data

    handle = await waiter.invoke(here)
    await reached(here, handle.id, "e")
    await events.publish(there, "t", {"event_type": "stay", "data": {}})
    await events.publish(there, "t", {"event_type": "go", "data": {"to": "work"}})
    assert await handle.result() == {"to": "work"}


async def test_2_9_code_waits_for_what_another_execution_tells(client: PolosClient) -> None:
    @workflow(id="teller")
    async def teller(ctx: WorkflowContext) -> str:
        await ctx.step.wait_for_event("go", "go")
        return "told"

    @workflow(id="listener")
    async def listener(ctx: WorkflowContext, id: str) -> str:
        topic = f"workflow/teller/{id}"
        end = await ctx.step.wait_for_event("end", topic, filter={"event_type": "workflow_finish"})
        return end.data["result"]

    told = await teller.invoke(client)
    heard = await listener.invoke(client, told.id)
    await reached(client, heard.id, "end")
    await say(client, "go", 1)
    assert await heard.result() == "told"


async def test_2_9_nothing_in_time_is_an_error_of_its_own(client: PolosClient) -> None:
    @workflow(id="impatient")
    async def impatient(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.wait_for_event("e", "t", timeout=0.05)
        except WaitTimeoutError as error:
            return str(error)
        return "?"

    assert (await impatient(client)).startswith("Event wait expired at 20")


async def test_2_9_an_event_that_nobody_wants_any_more_wakes_nobody(client: PolosClient) -> None:
    @workflow(id="gives_up")
    async def gives_up(ctx: WorkflowContext) -> Any:
        try:
            async with asyncio.timeout(0.05):
                await ctx.step.wait_for_event("e", "t")
        except TimeoutError:
            pass
        return (await ctx.step.wait_for_event("f", "u")).data

    handle = await gives_up.invoke(client)
    await reached(client, handle.id, "f")
    await say(client, "t", 1)
    attempts = (await client.node()).runner.attempt_of(handle.id).number
    await say(client, "other", 1)
    assert (await client.node()).runner.attempt_of(handle.id).number - attempts <= 1
    await say(client, "u", 2)
    assert await handle.result() == {"n": 2}


async def test_a_filter_that_fails_fails_its_step(client: PolosClient) -> None:
    @workflow(id="picky")
    async def picky(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.wait_for_event("e", "t", filter=lambda e: e.data["missing"])
        except StepExecutionError as error:
            return str(error)
        return "?"

    handle = await picky.invoke(client)
    await reached(client, handle.id, "e")
    await say(client, "t", 1)
    assert "KeyError" in await handle.result() or "missing" in await handle.result()


async def never(event: EventPayload) -> bool:
    return False


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": "1"},
        {"filter": {}},
        {"filter": {"": 1}},
        {"filter": {"a": ("~", 1)}},
        {"filter": {"a": ("in", 1)}},
        {"filter": {"a": object()}},
        {"filter": [1]},
        {"filter": never},
        {"topic": ""},
    ],
)
async def test_a_bad_wait_is_refused(options: dict[str, Any]) -> None:
    @workflow(id="bad")
    async def bad(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.wait_for_event("e", **{"topic": "t", **options})
        except UsageError as error:
            return type(error).__name__
        return "?"

    async with PolosClient("sqlite://") as client:
        assert await bad(client) == "UsageError"


# -- triggers -------------------------------------------------------------------------------------


async def test_2_9_each_event_starts_one_execution(opened: Open) -> None:
    @workflow(id="single", trigger_on_event="orders")
    async def single(ctx: WorkflowContext, event: EventPayload) -> int:
        return event.sequence_id

    @workflow(id="batch", trigger_on_event="orders", batch_size=4)
    async def batch(ctx: WorkflowContext, given: BatchEventPayload) -> list[int]:
        return [event.sequence_id for event in given.events]

    clients = [await opened(), await opened()]
    for n in range(5):
        await asyncio.gather(*(say(client, "orders", n, n) for client in clients))

    async def results(workflow_id: str, count: int) -> list[Any]:
        while True:
            found = await clients[0].list_executions(workflow_id=workflow_id, limit=100)
            if len(found) >= count:
                return [await clients[0].get_handle(each["id"]).result() for each in found]
            await asyncio.sleep(0.01)

    assert sorted(await results("single", 20)) == list(range(1, 21))
    batches = await results("batch", 5)
    assert sorted(batches) == [list(range(n, n + 4)) for n in range(1, 21, 4)]
    assert len(await clients[0].list_executions(limit=100)) == 25


async def test_2_9_a_batch_goes_when_its_first_event_is_old_enough(client: PolosClient) -> None:
    done: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    @workflow(id="b", trigger_on_event="t", batch_size=10, batch_timeout_seconds=1)
    async def b(ctx: WorkflowContext, given: BatchEventPayload) -> None:
        done.set_result([event.data["n"] for event in given.events])

    await say(client, "t", 1, 2)
    assert await done == [1, 2]


async def test_a_workflow_that_asks_for_batches_gets_batches_of_one(client: PolosClient) -> None:
    given: asyncio.Queue[list[int]] = asyncio.Queue()

    @workflow(id="ones", trigger_on_event="t")
    async def ones(ctx: WorkflowContext, batch: BatchEventPayload) -> None:
        given.put_nowait([event.data["n"] for event in batch.events])

    await say(client, "t", 1, 2)
    assert sorted([await given.get(), await given.get()]) == [[1], [2]]


async def test_a_payload_that_does_not_fit_starts_nothing_and_loses_nothing(
    client: PolosClient, caplog: pytest.LogCaptureFixture
) -> None:
    @workflow(id="unfit", trigger_on_event="t")
    async def unfit(ctx: WorkflowContext, n: int) -> None:
        return None

    await say(client, "t", 1)
    while True:
        if "unfit" in caplog.text:
            break
        await asyncio.sleep(0.01)
    assert await client.list_executions() == []
    node = await client.node()
    assert len((await node.engine.triggered("unfit", "t", 10)).events) == 1


async def test_a_payload_that_does_not_fit_holds_up_nothing_that_came_before_it(
    client: PolosClient, caplog: pytest.LogCaptureFixture
) -> None:
    class Number(BaseModel):
        n: int

    class Numbered(BaseModel):
        data: Number

    began: asyncio.Queue[int] = asyncio.Queue()

    @workflow(id="numbered", trigger_on_event="t")
    async def numbered(ctx: WorkflowContext, event: Numbered) -> None:
        began.put_nowait(event.data.n)

    given: list[Any] = [1, 2, "x", 4]
    await events.batch_publish(client, "t", [{"data": {"n": n}} for n in given])
    assert {await began.get(), await began.get()} == {1, 2}
    while True:
        if "numbered" in caplog.text:
            break
        await asyncio.sleep(0.01)
    node = await client.node()
    pending = await node.engine.triggered("numbered", "t", 10)
    assert [event.seq for event in pending.events] == [3, 4]


async def test_a_batch_is_not_held_up_by_one_that_is_due_later() -> None:
    ages: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    @workflow(id="soon", trigger_on_event="s", batch_size=10, batch_timeout_seconds=0.3)
    async def soon(ctx: WorkflowContext, given: BatchEventPayload) -> None:
        now = await ctx.step.now("now")
        ages.set_result(now / 1e3 - given.events[0].created_at.timestamp())

    @workflow(id="late", trigger_on_event="l", batch_size=10, batch_timeout_seconds=60)
    async def late(ctx: WorkflowContext, given: BatchEventPayload) -> None: ...

    async with Simulation() as simulation:
        await say(simulation.client, "s", 1)
        await say(simulation.client, "l", 1)
        assert 0.299 < await ages < 0.4
