"""Watching states: each recorded change once and in order, wherever it was recorded."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from polos import ExecutionHandle, PolosClient, WorkflowContext, WorkflowState, workflow
from polos.client import watching_many
from polos.client.watching import StateWatch
from polos.client.watching_many import Watch
from polos.errors import ExecutionNotFoundError, StoreClosedError, UsageError
from polos.testing.postgres import PostgresDatabase
from tests.postgres import fresh_url
from tests.semantics.conftest import Open
from tests.sim.helpers import by_hand, turns


class Total(WorkflowState):
    n: int = 0
    odd: list[int] = []


async def noop() -> None:
    pass


def counting() -> Any:
    @workflow(id="counting", state_schema=Total)
    async def code(ctx: WorkflowContext, count: int) -> int:
        for n in range(1, count + 1):
            ctx.state.n = n
            if n % 2:
                ctx.state.odd.append(n)
            await ctx.step.run(f"s{n}", noop)
        return ctx.state.n

    return code


def gated() -> Any:
    @workflow(id="gated", state_schema=Total)
    async def code(ctx: WorkflowContext, count: int) -> int:
        for n in range(1, count + 1):
            ctx.state.n = n
            await ctx.step.suspend(f"go{n}", {})
        return ctx.state.n

    return code


async def collect(watch: Any) -> list[dict[str, Any]]:
    return [each async for each in watch]


async def take(watch: Any, count: int) -> list[dict[str, Any]]:
    return [await anext(watch) for _ in range(count)]


async def until_it_waits(*watches: StateWatch | Watch) -> None:
    while not all(each.waits for each in watches):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)


async def until_suspended(handle: ExecutionHandle) -> None:
    while (await handle.get())["status"] != "waiting":  # noqa: ASYNC110 - nor of this
        await asyncio.sleep(0)


def versions(items: list[dict[str, Any]]) -> list[int]:
    return [each["seq"] for each in items]


# -- one execution ----------------------------------------------------------------------------


async def test_a_watcher_gets_the_state_as_it_is_and_then_every_change(
    client: PolosClient,
) -> None:
    handle = await gated().invoke(client, 3)
    watch = handle.watch_state()
    first = await anext(watch)
    if first["seq"] == 0:
        first = await anext(watch)
    assert (first["seq"], first["state"]) == (1, {"n": 1, "odd": []})
    for n in (1, 2):
        await handle.resume(f"go{n}")
        item = await anext(watch)
        assert item == (await handle.state_history(after=n, limit=1))[0]
        assert item["changes"] == [{"op": "replace", "path": "n", "old": n, "new": n + 1}]
    await handle.resume("go3")
    assert await collect(watch) == []
    assert watch.version == 3


async def test_the_first_item_of_an_execution_that_has_ended_is_the_only_one(
    client: PolosClient,
) -> None:
    handle = await counting().invoke(client, 4)
    await handle.result()
    (only,) = await collect(handle.watch_state())
    assert (only["seq"], only["changes"], only["state"]) == (4, [], {"n": 4, "odd": [1, 3]})
    history = await handle.state_history()
    assert await collect(client.watch_state(handle.id, after_version=-1)) == history
    assert await collect(client.watch_state(handle.id, after_version=2)) == history[3:]
    assert await collect(client.watch_state(handle.id, after_version=4)) == []


async def test_a_path_leaves_only_what_changes_it(client: PolosClient) -> None:
    handle = await counting().invoke(client, 5)
    items = await collect(handle.watch_state("odd[1]", after_version=-1))
    assert [(each["seq"], each["value"]) for each in items] == [(3, 3)]
    items = await collect(handle.watch_state("odd"))
    assert [each["value"] for each in items] == [[1, 3, 5]]
    items = await collect(handle.watch_state("nothing.here"))
    assert [each["value"] for each in items] == [None]


async def test_an_execution_without_state_gives_nothing_and_ends(client: PolosClient) -> None:
    @workflow
    async def plain(ctx: WorkflowContext) -> None:
        await ctx.step.run("s", noop)

    handle = await plain.invoke(client)
    assert await collect(handle.watch_state()) == []


async def test_what_cannot_be_watched_is_refused(client: PolosClient) -> None:
    handle = await counting().invoke(client, 2)
    for path, after in (("a..b", None), (3, None), (None, -2), (None, True), (None, "1")):
        with pytest.raises(UsageError):
            client.watch_state(handle.id, path, after_version=after)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ExecutionNotFoundError):
        await anext(client.watch_state("nobody"))
    await handle.result()
    with pytest.raises(UsageError, match="up to 2"):
        await anext(handle.watch_state(after_version=7))
    for after in ("x", "{}", 3, '{"at":1,"seen":{"a":"b"}}'):
        with pytest.raises(UsageError, match="cursor"):
            client.watch(after=after)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError):
        client.watch(where={"nothing": 1})


async def test_a_reset_is_a_change_like_any_other(client: PolosClient) -> None:
    handle = await gated().invoke(client, 3)
    watch = handle.watch_state(after_version=-1)
    await take(watch, 2)
    await handle.resume("go1")
    assert (await anext(watch))["state"]["n"] == 2
    await until_suspended(handle)
    await handle.reset(to_step="go1")
    assert versions(await take(watch, 2)) == [3, 4]


async def test_a_slow_watcher_loses_nothing(client: PolosClient) -> None:
    handle = await counting().invoke(client, 300)
    watch = handle.watch_state(after_version=-1)
    first = await anext(watch)
    await handle.result()
    assert versions([first, *await collect(watch)]) == list(range(301))


async def test_a_watcher_that_is_not_waited_for_any_more_loses_nothing(
    client: PolosClient,
) -> None:
    many = client.watch("counting")
    handle = await counting().invoke(client, 40)
    watch = handle.watch_state(after_version=-1)
    seen: list[int] = []
    also: dict[int, None] = {}
    turn = 0
    while len(seen) < 41 or len(also) < 41:
        turn += 1
        for each, told in ((watch, seen.append), (many, also.setdefault)):
            task = asyncio.ensure_future(anext(each, None))
            await asyncio.wait({task}, timeout=turn % 8 * (1 + turn / 20) / 1000)
            task.cancel()
            (found,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(found, dict):
                told(found["seq"])
    assert seen == list(range(41))
    assert list(also) == list(range(41))


async def test_watchers_of_another_client_see_the_same(opened: Open) -> None:
    mine, other = await opened(), await opened()
    handle = await counting().invoke(mine, 50)
    items = await collect(other.watch_state(handle.id, after_version=-1))
    assert versions(items) == list(range(51))
    assert items == await handle.state_history()


async def test_who_waits_is_told_that_the_client_was_closed(client: PolosClient) -> None:
    handle = await gated().invoke(client, 1)
    watch, many = handle.watch_state(after_version=-1), client.watch("gated")
    await take(watch, 2)
    waiting = [asyncio.create_task(each) for each in (collect(watch), collect(many))]
    await until_it_waits(watch, many)
    await client.close()
    for task in waiting:
        with pytest.raises(StoreClosedError):
            await task


async def test_watchers_that_nobody_holds_are_forgotten(client: PolosClient) -> None:
    watching = (await client.node()).engine.watching
    handle = await gated().invoke(client, 1)
    one, many = handle.watch_state(), client.watch()
    await anext(one)
    await anext(many)
    assert watching.active
    await one.aclose()
    assert [each async for each in one] == []
    del one, many
    gc.collect()
    assert not watching.active


# -- many -------------------------------------------------------------------------------------


def by_execution(items: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in items:
        found.setdefault(each["execution_id"], []).append(each["seq"])
    return found


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_all_changes_of_all_executions_come_once_and_in_order(
    opened: Open, where: str
) -> None:
    mine = await opened()
    watcher = mine if where == "here" else await opened()
    watch = watcher.watch("counting")
    begun = asyncio.create_task(take(watch, 20 * 31))
    await until_it_waits(watch)
    code, other = counting(), gated()
    await other.invoke(mine, 1)
    handles = [await code.invoke(mine, 30) for _ in range(20)]
    items = await begun
    expected = {handle.id: list(range(31)) for handle in handles}
    assert by_execution(items) == expected
    assert {each["workflow_id"] for each in items} == {"counting"}
    last = items[-1]
    state = await mine.get_handle(last["execution_id"]).state_at(seq=last["seq"])
    assert last["state"] == state
    await asyncio.gather(*(handle.result() for handle in handles))


async def test_it_begins_with_what_is_open(client: PolosClient) -> None:
    code = gated()
    ended = await counting().invoke(client, 3)
    await ended.result()
    handle = await code.invoke(client, 2)
    await until_suspended(handle)
    watch = client.watch()
    first = await anext(watch)
    assert (first["execution_id"], first["seq"], first["changes"]) == (handle.id, 1, [])
    assert (first["workflow_id"], first["status"]) == ("gated", "waiting")
    await handle.resume("go1")
    assert (await anext(watch))["seq"] == 2


async def test_conditions_are_about_the_state_as_of_the_change(client: PolosClient) -> None:
    watch = client.watch("counting", where={"state.n": (">", 3), "tags.team": "a"})
    begun = asyncio.create_task(take(watch, 2))
    await until_it_waits(watch)
    await (await client.invoke(counting(), 9, tags={"team": "b"})).result()
    handle = await client.invoke("counting", 5, tags={"team": "a"})
    assert by_execution(await begun) == {handle.id: [4, 5]}


async def test_it_begins_when_it_was_asked_for(client: PolosClient) -> None:
    code, suspended = counting(), gated()
    before = await suspended.invoke(client, 1)
    await until_suspended(before)
    watch = client.watch()
    handle = await code.invoke(client, 3)
    await handle.result()
    await before.resume("go1")
    await before.result()
    assert by_execution(await take(watch, 4)) == {handle.id: [0, 1, 2, 3]}


@pytest.mark.parametrize("stop", [0, 1, 7, 30, 61])
async def test_another_watcher_goes_on_at_the_cursor(opened: Open, stop: int) -> None:
    mine = await opened()
    code = counting()
    open_one = await gated().invoke(mine, 2)
    await until_suspended(open_one)
    watch = mine.watch()
    seen = await take(watch, 1)
    first = [await code.invoke(mine, 30) for _ in range(2)]
    seen += await take(watch, stop)
    cursor = watch.cursor
    await watch.aclose()
    second = await code.invoke(mine, 30)  # begins, and ends, while nobody watches
    await asyncio.gather(*(handle.result() for handle in [*first, second]))
    await open_one.resume("go1")
    again = (await opened()).watch(after=cursor)
    assert again.cursor == cursor
    seen += await take(again, 3 * 31 - stop + 1)
    expected = {handle.id: list(range(31)) for handle in [*first, second]}
    assert by_execution(seen) == {**expected, open_one.id: [1, 2]}


async def test_what_ended_and_goes_on_is_news(client: PolosClient) -> None:
    code = gated()
    handle = await code.invoke(client, 1)
    await handle.resume("go1")
    await handle.result()
    watch = client.watch()
    begun = asyncio.create_task(anext(watch))
    await until_it_waits(watch)
    fork = await handle.fork(at_step="go1", state={"n": 7})
    assert [(await begun)["execution_id"], (await anext(watch))["state"]["n"]] == [fork.id, 1]


async def test_too_many_at_once_are_found_by_looking(
    client: PolosClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_many, "NEWS_MAX", 2)
    monkeypatch.setattr(watching_many, "REELS_MAX", 2)
    monkeypatch.setattr(watching_many, "WINDOW", 3)
    watch = client.watch()
    begun = asyncio.create_task(anext(watch))
    await until_it_waits(watch)
    code = counting()
    handles = [await code.invoke(client, 10) for _ in range(6)]
    await asyncio.gather(*(handle.result() for handle in handles))
    items = [await begun, *await take(watch, 65)]
    assert by_execution(items) == {handle.id: list(range(11)) for handle in handles}


@pytest.mark.parametrize("store", ["memory", "postgres"])
async def test_a_commit_rings_at_once_without_time_passing(store: str) -> None:
    options = {} if store == "memory" else {"database": PostgresDatabase(fresh_url())}
    async with by_hand(**options) as simulation:
        handle = await gated().invoke(simulation.client, 3)
        watch = handle.watch_state(after_version=-1)
        seen = await take(watch, 2)
        for n in (1, 2):
            await handle.resume(f"go{n}")
            seen.append(await anext(watch))
        await turns()
    assert versions(seen) == [0, 1, 2, 3]
