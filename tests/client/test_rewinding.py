"""Fork, reset, history and blame, as programs use them, on SQLite and PostgreSQL."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from polos import (
    BatchWorkflowInput,
    ConflictError,
    ExecutionFailedError,
    PolosClient,
    StepNotFoundError,
    WorkflowContext,
    WorkflowState,
    workflow,
)
from polos.errors import InvalidPayloadError, InvalidStateError, UsageError


class Trip(WorkflowState):
    legs: int = 0
    notes: list[str] = []
    since: datetime | None = None


class Ran:
    """What bodies ran, in order."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def __call__(self, key: str) -> str:
        self.keys.append(key)
        return key

    def taken(self) -> list[str]:
        keys, self.keys = self.keys, []
        return keys


RAN = Ran()


@workflow(state_schema=Trip, index_state=["legs"])
async def trip(ctx: WorkflowContext, input: dict[str, Any]) -> dict[str, Any]:
    ctx.state.since = datetime(2026, 1, 1, tzinfo=UTC)
    await ctx.step.run("book", RAN, "book")
    ctx.state.legs += 1
    await asyncio.gather(ctx.step.run("car", RAN, "car"), ctx.step.run("hotel", RAN, "hotel"))
    if input.get("child"):
        await ctx.step.invoke_and_wait("stay", stay, {})
    ctx.state.notes.append("packed")
    await ctx.step.run("tour", RAN, "tour")
    if input.get("nap"):
        await ctx.step.wait_for("nap", days=1)
    if input.get("fail"):
        raise ValueError("no")
    return {"legs": ctx.state.legs, "input": input}


@workflow
async def stay(ctx: WorkflowContext, input: dict[str, Any]) -> str:
    return await ctx.step.run("stay", RAN, "stay")


async def history(client: PolosClient, id: str) -> list[tuple[str | None, int, list[str]]]:
    found = await client.state_history(id)
    return [(e["step_key"], e["state"]["legs"], e["state"]["notes"]) for e in found]


async def test_a_fork_goes_on_with_another_state_and_leaves_the_original(
    client: PolosClient,
) -> None:
    original = await trip.invoke(client, {"a": 1}, tags={"team": "x"}, session_id="s")
    await original.result()
    before = [await client.get_execution(original.id), await client.get_steps(original.id)]
    RAN.taken()
    fork = await original.fork(at_step="book", state={"legs": 5})
    assert await fork.result() == {"legs": 6, "input": {"a": 1}}
    assert sorted(RAN.taken()) == ["car", "hotel", "tour"]
    assert [await client.get_execution(original.id), await client.get_steps(original.id)] == before
    shown = await client.get_execution(fork.id)
    assert shown["forked_from"] == {"execution_id": original.id, "step_key": "book"}
    assert (shown["root_execution_id"], shown["parent_execution_id"]) == (fork.id, None)
    assert (shown["tags"], shown["session_id"]) == ({"team": "x"}, "s")
    assert shown["state"]["since"] == "2026-01-01T00:00:00Z"
    assert (await history(client, fork.id))[:3] == [
        (None, 0, []),
        ("book", 0, []),
        ("book", 5, []),
    ]
    assert before[0]["forked_from"] is None
    found = await client.list_executions(where={"state.legs": 6, "tags.team": "x"})
    assert [each["id"] for each in found] == [fork.id]


async def test_a_fork_at_the_last_step_runs_no_body(client: PolosClient) -> None:
    original = await trip.invoke(client, {"child": True})
    await original.result()
    RAN.taken()
    fork = await client.fork(original.id, at_step="tour", payload={"b": 2})
    assert await fork.result() == {"legs": 1, "input": {"b": 2}}
    assert RAN.taken() == []
    assert await client.list_executions(root_execution_id=fork.id) == [
        await client.get_execution(fork.id)
    ]


async def test_a_fork_of_a_fork_and_of_a_failed_execution(client: PolosClient) -> None:
    original = await trip.invoke(client, {"fail": True})
    with pytest.raises(ExecutionFailedError):
        await original.result()
    one = await original.fork(at_step="hotel", state=Trip(legs=3), payload={"n": 1})
    assert (await one.result())["legs"] == 3
    two = await one.fork(at_step="tour", state={"legs": 8})
    assert (await two.result())["legs"] == 8


async def test_a_fork_of_a_later_run_goes_on_as_that_run(client: PolosClient) -> None:
    @workflow(id="runs", state_schema=Trip)
    async def runs(ctx: WorkflowContext, input: dict[str, Any]) -> list[str]:
        if ctx.generation:
            ctx.state.notes[-1] += "!"  # what the run before left is there from the beginning
        await ctx.step.run("first", RAN, "first")
        ctx.state.notes.append(f"run {ctx.generation}")
        if ctx.generation < 2:
            ctx.continue_as_new({})
        return ctx.state.notes

    handle = await runs.invoke(client, {})
    wanted = ["run 0!", "run 1!", "run 2"]
    assert await handle.result() == wanted
    fork = await handle.fork(at_step="first")
    assert await fork.result() == wanted
    assert (await client.get_execution(fork.id))["generation"] == 2
    again = await fork.fork(at_step="first", state={"notes": ["other"]})
    assert await again.result() == ["other", "run 2"]
    await handle.reset(to_step="first")
    assert await handle.result() == wanted


async def test_a_fork_that_cannot_be_stores_nothing(client: PolosClient) -> None:
    original = await trip.invoke(client, {"nap": True})
    while (await client.get_execution(original.id))["status"] != "waiting":  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(StepNotFoundError, match="nowhere"):
        await original.fork(at_step="nowhere")
    with pytest.raises(ConflictError, match="open"):
        await original.fork(at_step="nap")
    for state in ({"legs": "many"}, {"unknown": 1}, {"legs": None}, 3, "{}"):
        with pytest.raises(InvalidStateError):
            await original.fork(at_step="book", state=state)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidPayloadError):
        await original.fork(at_step="book", payload=3)
    with pytest.raises(UsageError):
        await original.fork(at_step=None)  # pyright: ignore[reportArgumentType]
    assert len(await client.list_executions()) == 1
    done = await stay.invoke(client, {})
    await done.result()
    with pytest.raises(InvalidStateError, match="no state"):
        await done.fork(at_step="stay", state={"x": 1})


async def test_a_reset_goes_on_in_place_and_keeps_what_it_cut_off(client: PolosClient) -> None:
    handle = await trip.invoke(client, {})
    await handle.result()
    RAN.taken()
    planned = await handle.reset(to_step="book", dry_run=True)
    done = await handle.reset(to_step="book")
    assert planned == done
    assert sorted(done["steps"]) == ["car", "hotel", "tour"]
    assert sorted(e["step_key"] for e in done["effects"]) == ["car", "hotel", "tour"]
    assert (done["cut"], done["children"]) == (1, {})
    assert (await handle.result())["legs"] == 1
    assert sorted(RAN.taken()) == ["car", "hotel", "tour"]
    cut = await client.cut_steps(handle.id)
    assert sorted((e["step_key"], e["cut"], e["status"]) for e in cut) == [
        ("car", 1, "completed"),
        ("hotel", 1, "completed"),
        ("tour", 1, "completed"),
    ]
    seen = [(legs, notes) for _, legs, notes in await history(client, handle.id)]
    again = [(0, []), (1, []), (1, ["packed"])]
    assert seen == [(0, []), *again, *again]


async def test_a_failed_and_a_waiting_execution_are_reset(client: PolosClient) -> None:
    failed = await trip.invoke(client, {"fail": True})
    with pytest.raises(ExecutionFailedError):
        await failed.result()
    RAN.taken()
    await failed.reset(to_step="hotel")
    with pytest.raises(ExecutionFailedError):
        await failed.result()
    assert RAN.taken()[-1:] == ["tour"]
    waits = await trip.invoke(client, {"nap": True})
    for _ in range(2):
        while (await client.get_execution(waits.id))["status"] != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0)
        RAN.taken()
        await waits.reset(to_step="hotel")
        while "tour" not in RAN.keys:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(await client.cut_steps(waits.id)) == 4


async def test_the_past_is_read_by_step_entry_and_moment(client: PolosClient) -> None:
    handle = await trip.invoke(client, {})
    await handle.result()
    entries = await handle.state_history()
    assert entries[0]["changes"] == []
    assert [e["seq"] for e in entries] == list(range(len(entries)))
    for entry in entries:
        assert await handle.state_at(seq=entry["seq"]) == entry["state"]
        same = [e for e in entries if e["at"] == entry["at"]][-1]
        assert await handle.state_at(at=entry["at"]) == same["state"]
    assert await handle.state_at() == await handle.state()
    assert (await client.state_at(handle.id, step_key="book") or {})["legs"] == 0
    assert await handle.state_history(limit=2) == entries[:2]
    assert await handle.state_history(before=3, limit=2) == entries[1:3]
    assert await handle.state_history(after=1, limit=1) == entries[2:3]
    last = entries[-1]
    assert last["changes"] == [{"op": "add", "path": "notes[0]", "old": None, "new": "packed"}]
    blamed = await client.blame_state(handle.id, "legs")
    assert blamed["step_key"] in {"car", "hotel"}
    assert (blamed["value"], blamed["attempt"]) == (1, 1)
    assert blamed["worker_id"] is not None
    assert blamed["code_version"] == trip.code_version
    for wrong in (
        {"seq": 99},
        {"seq": -1},
        {"seq": "x"},
        {"at": "yesterday"},
        {"at": datetime(1999, 1, 1, tzinfo=UTC)},
        {"at": 5},
        {"seq": 0, "step_key": "book"},
    ):
        with pytest.raises(UsageError):
            await client.state_at(handle.id, **wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StepNotFoundError):
        await handle.state_at(step_key="nowhere")
    for path in ("zzz", "legs.x", "a b"):
        with pytest.raises(UsageError):
            await client.blame_state(handle.id, path)


async def test_without_state_there_is_no_past(client: PolosClient) -> None:
    handle = await stay.invoke(client, {})
    await handle.result()
    assert await handle.state_history() == []
    assert await handle.state_at() is None


async def test_tags_of_every_way_of_starting(client: PolosClient) -> None:
    await trip.run(client, {}, tags={"way": "run"})
    await (await client.invoke("trip", {}, tags={"way": "id"})).result()
    inputs = [BatchWorkflowInput(id="trip", payload={}, tags={"way": "batch"})]
    for handle in await client.batch_invoke(inputs):
        await handle.result()
    assert await client.count_executions(group_by="tags.way") == {"batch": 1, "id": 1, "run": 1}
    for tags in ({"a": 1}, {"": "x"}, {"a": "x" * 300}, ["a"], {"a": "\n"}, {1: "x"}):
        with pytest.raises(UsageError, match="tags"):
            await trip.invoke(client, {}, tags=tags)  # pyright: ignore[reportArgumentType]
    assert await client.count_executions() == 3
