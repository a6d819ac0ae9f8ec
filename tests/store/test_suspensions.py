"""Answers to suspensions: the first one holds, whoever brings it and whenever it comes."""

import asyncio
import json
from typing import Any

import pytest

from polos.core.model import Kind, Row, Start, Status, Wait
from polos.core.suspension import Answer
from polos.errors import (
    AlreadyResumedError,
    ConflictError,
    ExecutionNotFoundError,
    FormError,
    UsageError,
)
from polos.store.protocol import Store
from tests.store.conftest import Opener
from tests.store.records import (
    SECOND,
    T0,
    Told,
    change,
    child_start,
    ending,
    owned_start,
    read,
    worker,
    write,
    write_all,
)

ROOT = {"root_id": "p"}


def asks(
    id: str = "p", key: str = "ok", seq: int = 1, *, data: Any = None, due_at: int | None = None
) -> Told:
    """Return the change of an execution of the tree `p` that suspends, and only waits then."""
    body = json.dumps(data)
    row = Row(seq, "suspend", key, 0, info=body, due_at=due_at, started_at=T0)
    wait = Wait("p", id, seq, Kind.SUSPEND, key, T0, body=body, due_at=due_at)
    told = change(id, 1, row, root_id="p", waits=[wait], status=Status.WAITING)
    told.wake_at = due_at
    return told


def answer(id: str = "p", key: str = "ok", name: str = "a1", **options: Any) -> Answer:
    data = json.dumps(options.pop("data", {"go": True}))
    return Answer(name, id, key, data, options.pop("at", T0 + 5), **options)


async def items(store: Store, id: str = "p") -> list[tuple[str, Any]]:
    return [(i.id, json.loads(i.body or "null")) for i in await store.inboxes([("p", id)])]


async def in_turn(store: Store, *commands: Told | Start) -> None:
    """Write commands one after the other."""
    for command in commands:
        await write_all(store, command)


async def family(store: Store, *children: str) -> None:
    """Write the root `p` with running children."""
    await in_turn(store, owned_start("p"))
    starts = [child_start(each, "p", "p") for each in children]
    row = Row(1, "batch_invoke_and_wait", "family", 0, started_at=T0)
    await write_all(store, change("p", 1, row, starts=starts))


async def test_an_answer_wakes_who_waits_for_it(store: Store) -> None:
    await in_turn(store, owned_start("p"))
    assert await write(store, asks()) == ["waiting"]
    accepted = await store.resume(answer(workflow_id="wf"))
    assert (accepted.execution_id, accepted.key, accepted.early) == ("p", "ok", False)
    assert (accepted.at, accepted.worker_id) == (T0 + 5, "w1")
    found = await read(store, "p")
    assert (found.status, found.wake_at) == (Status.QUEUED, T0 + 5)
    assert await items(store) == [("resume/1", {"id": "a1", "at": T0 + 5, "data": {"go": True}})]
    assert await store.suspensions({}, 10, T0) == []


async def test_a_second_answer_is_refused_with_the_time_of_the_first(store: Store) -> None:
    await in_turn(store, owned_start("p"), asks())
    await store.resume(answer())
    with pytest.raises(AlreadyResumedError, match=r"2023-11-14T22:13:20\.000005") as caught:
        await store.resume(answer(name="a2", at=T0 + 9))
    assert caught.value.accepted_at == "2023-11-14T22:13:20.000005+00:00"
    assert len(await items(store)) == 1


async def test_the_same_answer_sent_twice_counts_once(store: Store) -> None:
    await in_turn(store, owned_start("p"), asks())
    await store.resume(answer())
    assert (await store.resume(answer(at=T0 + 9))).early is False
    assert len(await items(store)) == 1


async def test_an_answer_is_refused_behind_the_row_that_it_closed(store: Store) -> None:
    await in_turn(store, owned_start("p"), asks())
    await store.resume(answer())
    body = '{"id": "a1", "created_at": "then", "data": 1}'
    row = Row(1, "suspend", "ok", 0, turn=1, ok=True, body=body, started_at=T0)
    closed = change("p", 1, row, consumed=["resume/1"], answered=[1])
    await write_all(store, closed)
    assert await items(store) == []
    await store.resume(answer())  # the same, after a crash of who sent it
    with pytest.raises(AlreadyResumedError, match="at then"):
        await store.resume(answer(name="a2"))
    await write_all(store, change("p", 1, ending=ending()))
    await store.resume(answer())
    with pytest.raises(AlreadyResumedError):
        await store.resume(answer(name="a2"))
    assert await items(store) == []


async def test_an_early_answer_is_kept_and_wakes_nobody_until_it_is_asked_for(
    store: Store,
) -> None:
    await in_turn(store, owned_start("p"))
    assert (await store.resume(answer())).early
    other = Row(1, "wait_for", "w", 0, started_at=T0)
    assert await write(store, change("p", 1, other, status=Status.WAITING)) == ["waiting"]
    assert (await read(store, "p")).status is Status.WAITING


async def test_an_early_answer_is_there_when_the_code_suspends(store: Store) -> None:
    await in_turn(store, owned_start("p"))
    await store.resume(answer())
    with pytest.raises(AlreadyResumedError):
        await store.resume(answer(name="a2"))
    assert await write(store, asks()) == ["queued"]
    (found,) = await store.inboxes([("p", "p")])
    assert (found.id, found.kind, found.ref) == ("resume:ok", "resume", "resume:ok")
    with pytest.raises(AlreadyResumedError):
        await store.resume(answer(name="a3"))


async def test_an_early_answer_to_the_root_is_for_the_child_that_asks(store: Store) -> None:
    await family(store, "c")
    assert (await store.resume(answer())).execution_id == "p"
    assert await write(store, asks("c")) == ["queued"]
    assert await items(store, "p") == []
    assert [id_ for id_, _ in await items(store, "c")] == ["resume:ok"]


async def test_an_early_answer_that_does_not_fit_does_not_stand_in_the_way(store: Store) -> None:
    await in_turn(store, owned_start("p"))
    await store.resume(answer(data="yes"))
    form = {"_form": {"fields": [{"key": "go", "type": "boolean", "required": True}]}}
    await write_all(store, asks(data=form))
    await store.resume(answer(name="a2"))
    assert [id_ for id_, _ in await items(store)] == ["resume/1", "resume:ok"]


async def test_an_answer_that_does_not_fit_the_form_is_refused_and_stores_nothing(
    store: Store,
) -> None:
    fields = [{"name": "go", "type": "boolean", "required": True}, {"key": "n", "default": "x"}]
    await in_turn(store, owned_start("p"), asks(data={"_form": {"fields": fields}}))
    with pytest.raises(FormError, match="go: expected true or false, not 'yes'"):
        await store.resume(answer(data={"go": "yes"}))
    assert await items(store) == []
    assert (await read(store, "p")).status is Status.WAITING
    await store.resume(answer(data={"go": False, "more": 1}))
    ((_, body),) = await items(store)
    assert body["data"] == {"go": False, "more": 1, "n": "x"}


async def test_the_root_names_what_is_open_below_it(store: Store) -> None:
    await family(store, "c", "d")
    await write_all(store, asks("c"))
    accepted = await store.resume(answer("p"))
    assert accepted.execution_id == "c"
    await write_all(store, asks("d", "other"), asks("p", "other", 2))
    assert (await store.resume(answer("p", "other"))).execution_id == "p"  # its own comes first


async def test_a_key_that_is_open_in_several_children_names_them(store: Store) -> None:
    await family(store, "c", "d")
    await write_all(store, asks("c"), asks("d"))
    with pytest.raises(ConflictError, match=r"several executions below 'p'.*: c, d"):
        await store.resume(answer("p"))
    assert (await store.resume(answer("d"))).execution_id == "d"


async def test_of_several_those_count_that_are_open(store: Store) -> None:
    await family(store, "c", "d", "e")
    await write_all(store, asks("c"), asks("d"), asks("e", due_at=T0 + 4))
    await store.resume(answer("d"))
    assert (await store.resume(answer("p", name="a2"))).execution_id == "c"
    with pytest.raises(AlreadyResumedError, match="'c'"):
        await store.resume(answer("p", name="a3"))


async def test_the_same_answer_to_the_root_is_for_one_child_only(store: Store) -> None:
    await family(store, "c", "d")
    await write_all(store, asks("c"))
    assert (await store.resume(answer("p"))).execution_id == "c"
    await write_all(store, asks("d"))
    await store.resume(answer("p"))  # the same, after a crash of who sent it
    body = '{"id": "a1", "created_at": "then", "data": 1}'
    row = Row(1, "suspend", "ok", 0, turn=1, ok=True, body=body, started_at=T0)
    closed = change("c", 1, row, root_id="p", consumed=["resume/1"], answered=[1])
    await write_all(store, closed)
    await store.resume(answer("p"))
    assert await items(store, "d") == []
    assert (await store.resume(answer("p", name="a2"))).execution_id == "d"


async def test_what_cannot_be_answered_says_why(store: Store) -> None:
    await in_turn(store, owned_start("p"), asks())
    with pytest.raises(ExecutionNotFoundError, match="'x'"):
        await store.resume(answer("x"))
    with pytest.raises(UsageError, match="is of workflow 'wf', not of 'else'"):
        await store.resume(answer(workflow_id="else"))
    await in_turn(store, owned_start("q"), change("q", 1, ending=ending()))
    with pytest.raises(ConflictError, match="'q' is completed"):
        await store.resume(answer("q"))
    assert await items(store) == []


async def test_time_that_is_over_and_an_answer_exclude_each_other(store: Store) -> None:
    due = T0 + SECOND
    await in_turn(store, owned_start("p"), asks(due_at=due))
    assert not await store.expire("p", "p", 1, due - 1)
    assert await store.expire("p", "p", 1, due)
    assert await items(store) == [("resume/1", {"at": due, "timed_out": True})]
    assert (await read(store, "p")).status is Status.QUEUED
    with pytest.raises(ConflictError, match="timed out at 2023-11-14T22:13:21"):
        await store.resume(answer())


async def test_an_answer_in_time_wins_however_late_the_time_is_looked_at(store: Store) -> None:
    due = T0 + SECOND
    await in_turn(store, owned_start("p"), asks(due_at=due))
    await store.resume(answer(at=due - 1))
    assert await store.expire("p", "p", 1, due + SECOND)
    ((_, body),) = await items(store)
    assert body["data"] == {"go": True}


async def test_an_answer_is_late_even_if_nobody_has_looked_at_the_time(store: Store) -> None:
    await in_turn(store, owned_start("p"), asks(due_at=T0 + SECOND))
    with pytest.raises(ConflictError, match="timed out"):
        await store.resume(answer(at=T0 + SECOND))
    assert not await store.expire("p", "p", 2, T0 + 9 * SECOND)
    assert not await store.expire("p", "x", 1, T0 + 9 * SECOND)


async def test_open_suspensions_are_listed_oldest_first(store: Store) -> None:
    await family(store, "c")
    await write_all(store, asks("c", "b", data={"n": 1}, due_at=T0 + SECOND))
    await write_all(store, asks("p", "a", 2))
    found = await store.suspensions({}, 10, T0)
    assert [(s.wait.execution_id, s.wait.key, s.workflow_id) for s in found] == [
        ("c", "b", "wf"),
        ("p", "a", "wf"),
    ]
    assert (found[0].wait.body, found[0].wait.due_at) == ('{"n": 1}', T0 + SECOND)
    assert [s.wait.key for s in await store.suspensions({}, 1, T0)] == ["b"]
    assert [s.wait.key for s in await store.suspensions({}, 10, T0 + SECOND)] == ["a"]
    for filters, keys in (
        ({"root_id": "p"}, ["b", "a"]),
        ({"execution_id": "p"}, ["a"]),
        ({"workflow_id": "wf", "root_id": "p"}, ["b", "a"]),
        ({"workflow_id": "x"}, []),
    ):
        assert [s.wait.key for s in await store.suspensions(filters, 10, T0)] == keys


@pytest.mark.parametrize("how", ["answered", "forced", "blocked"])
async def test_nothing_is_open_in_what_has_ended(store: Store, how: str) -> None:
    opened = asks()
    opened.status = None if how == "blocked" else Status.WAITING
    await in_turn(store, owned_start("p"), opened)
    if how == "answered":
        assert [work.execution.id for work in await _claimed(store)] == ["p"]
        await write_all(store, change("p", 2, ending=ending(), answered=[1]))
    elif how == "forced":
        await store.cancel("p", T0)
        assert await store.force_cancel(T0 + SECOND, T0 + SECOND) == ["p"]
    else:
        assert await store.block("p", 1, "no code")
        assert len(await store.suspensions({}, 10, T0)) == 1  # it can be answered all the same
        await store.cancel("p", T0)
    assert await store.suspensions({}, 10, T0) == []


async def _claimed(store: Store) -> list[Any]:
    await store.resume(answer())
    found = await store.claimable("w1", ["wf"], False, T0 + SECOND, 10)
    return await store.claim("w1", found, {}, T0 + SECOND)


async def test_a_takeover_keeps_what_is_open(store: Store) -> None:
    await store.register_worker(worker("w1"))
    opened = asks()
    opened.status = None
    await in_turn(store, owned_start("p"), opened)
    assert await store.stop_worker("w1", T0, crashed=True) == 1
    assert len(await store.suspensions({}, 10, T0)) == 1
    assert not (await store.resume(answer())).early


async def test_of_many_answers_at_once_one_is_accepted(open_store: Opener) -> None:
    stores = [await open_store() for _ in range(3)]
    await in_turn(stores[0], owned_start("p"), asks())
    sent = [store.resume(answer(name=f"a{n}")) for n, store in enumerate(stores * 4)]
    results = await asyncio.gather(*sent, return_exceptions=True)
    refused = [each for each in results if isinstance(each, AlreadyResumedError)]
    assert len(refused) == len(results) - 1
    assert len(await items(stores[0])) == 1


async def test_an_early_answer_meets_the_child_that_suspends_at_the_same_time(
    open_store: Opener,
) -> None:
    one, other = await open_store(), await open_store()
    await write_all(one, owned_start("p"))
    for n in range(20):
        child, key = f"c{n}", f"k{n}"
        row = Row(n + 1, "invoke", child, 0, started_at=T0)
        await write_all(one, change("p", 1, row, starts=[child_start(child, "p", "p")]))
        (status,), accepted = await asyncio.gather(
            write(one, asks(child, key)), other.resume(answer("p", key))
        )
        assert accepted.early is (accepted.execution_id == "p")
        assert len(await one.inboxes([("p", child)])) == 1
        assert await one.inboxes([("p", "p")]) == []
        assert (await read(one, child)).status is Status.QUEUED, status
