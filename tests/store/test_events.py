"""Events of topics: one order without gaps, and who waits gets them."""

import asyncio
import itertools
import json
from collections.abc import Sequence

import pytest

from polos.core.events import EACH, dump_filter, item_id
from polos.core.model import ClaimLost, Event, InboxItem, Publish, Published, Row, Status, Wait
from polos.core.work import Renewal
from polos.errors import StoreReadOnlyError
from polos.store.protocol import Store
from tests.store.conftest import Opener
from tests.store.records import (
    SECOND,
    T0,
    Told,
    change,
    child_start,
    done_row,
    ending,
    owned_start,
    worker,
    write,
    write_all,
)

_ids = itertools.count(1)


def event(topic: str = "t", data: object = None, **options: object) -> Event:
    given = {"at": T0, "type": None, **options}
    return Event(topic, f"e{next(_ids)}", given["type"], json.dumps(data), given["at"])  # type: ignore[arg-type]


async def publish(store: Store, *events: Event) -> list[int]:
    future: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    store.submit(Publish(events, future.set_result))
    assert await future is None
    return [each.seq for each in events]


async def waiting(store: Store, id: str = "a", topic: str = "t", filter: str | None = None) -> None:
    """Let an execution wait for an event."""
    await store.register_worker(worker("w1"))
    await write(store, owned_start(id))
    await wait_for(store, id, topic, filter)


async def wait_for(store: Store, id: str, topic: str, filter: str | None = None) -> None:
    row = Row(1, "wait_for_event", "got", 0, started_at=T0)
    wait = Wait(id, id, 1, "wait_for_event", "got", T0, topic, filter)
    (status,) = await write(store, change(id, 1, row, waits=[wait], status=Status.WAITING))
    assert status in {"waiting", "queued"}


async def inbox(store: Store, id: str = "a") -> list[InboxItem]:
    return await store.inboxes([(id, id)])


async def test_a_topic_counts_its_events_without_gaps(store: Store) -> None:
    assert await publish(store, event(), event("other"), event()) == [1, 1, 2]
    assert await publish(store, event()) == [3]
    assert [each.seq for each in await store.events("t", 0, 10)] == [1, 2, 3]
    assert [each.seq for each in await store.events("t", 1, 1)] == [2]
    assert await store.last_seqs(["t", "other", "none"]) == {"t": 3, "other": 1, "none": 0}
    assert [(each.name, each.last, each.events) for each in await store.topics()] == [
        ("other", 1, 1),
        ("t", 3, 3),
    ]


async def test_an_event_comes_back_as_it_was_published(store: Store) -> None:
    given = event("t", {"a": ["ü\u0000", None, 1.5]}, type="kind", at=T0 + 5)
    await publish(store, given)
    (found,) = await store.events("t", 0, 10)
    assert found == given


async def test_a_time_is_a_cursor(store: Store) -> None:
    await publish(store, *(event(at=T0 + n * SECOND) for n in range(3)))
    assert await store.seq_at("t", T0 - 1) == 0
    assert await store.seq_at("t", T0) == 1
    assert await store.seq_at("t", T0 + 9 * SECOND) == 3
    assert await store.seq_at("none", T0) == 0


async def test_events_of_a_change_are_there_with_it_or_not_at_all(store: Store) -> None:
    await write(store, owned_start("a"))
    await write(store, change("a", 1, Row(1, "publish", "p", 0), events=[event()]))
    assert len(await store.events("t", 0, 10)) == 1
    await write(store, change("a", 7, Row(2, "publish", "q", 0), events=[event()]))
    assert len(await store.events("t", 0, 10)) == 1


async def test_who_waits_gets_the_first_event_after_it(store: Store) -> None:
    await publish(store, event(data="before"))
    await waiting(store)
    heard: list[Published] = []
    store.on_published = heard.append
    await publish(store, event(data="first"), event(data="second"))
    (item,) = await inbox(store)
    assert (item.id, item.kind, item.ref) == (item_id(1), "event", "event/1")
    assert json.loads(item.body or "")["data"] == "first"
    assert json.loads(item.body or "")["sequence_id"] == 2
    assert [each.woken for each in heard] == [{"a"}]
    assert [each.data for each in heard[0].events] == ['"first"', '"second"']
    found = await store.execution("a")
    assert found is not None
    assert found.status is Status.QUEUED
    await publish(store, event(data="third"))
    assert len(await inbox(store)) == 1


async def test_each_of_several_gets_the_event(store: Store) -> None:
    await waiting(store, "a")
    await waiting(store, "b")
    await publish(store, event(data=1))
    assert len(await inbox(store, "a")) == len(await inbox(store, "b")) == 1


async def test_a_filter_holds_other_events_back(store: Store) -> None:
    await waiting(store, filter=dump_filter({"n": (">", 2), "who.name": "x"}))
    await publish(store, event(data={"n": 3}), event(data={"n": 2, "who": {"name": "x"}}))
    assert await inbox(store) == []
    await publish(store, event(data={"n": 3, "who": {"name": "x"}}))
    assert len(await inbox(store)) == 1


async def test_code_that_looks_itself_gets_every_event(store: Store) -> None:
    await waiting(store, filter=EACH)
    await publish(store, event(data=1), event(data=2))
    await publish(store, event(data=3))
    found = [json.loads(item.body or "")["data"] for item in await inbox(store)]
    assert sorted(found) == [1, 2, 3]


async def test_an_event_in_the_commit_that_waits_is_not_missed(store: Store) -> None:
    await write(store, owned_start("a"))
    row = Row(1, "wait_for_event", "got", 0, started_at=T0)
    wait = Wait("a", "a", 1, "wait_for_event", "got", T0, "t")
    opens = change("a", 1, row, waits=[wait], status=Status.WAITING, events=[event()])
    assert await write(store, opens) == ["queued"]
    assert len(await inbox(store)) == 1


async def test_who_has_ended_gets_nothing(store: Store) -> None:
    await waiting(store)
    claimed = await store.claim("w1", [("a", "a", 1)], {}, T0)
    assert claimed == []
    await publish(store, event())
    (work,) = await store.claim("w1", [("a", "a", 1)], {}, T0)
    assert [item.id for item in work.inbox] == [item_id(1)]
    await write(store, change("a", 2, ending=ending()))
    await publish(store, event())
    assert await inbox(store) == []


async def test_the_topic_of_a_tree_tells_what_its_journals_hold(store: Store) -> None:
    await write(store, owned_start("a"))
    row = Row(1, "run", "load", 0, turn=1, ok=True, body="5", started_at=T0, completed_at=T0 + 1)
    await write(store, change("a", 1, row, status=Status.RUNNING))
    await store.derive("a")
    await store.derive("a")
    topic = "workflow/wf/a"
    told = [(e.seq, e.type, json.loads(e.data)) for e in await store.events(topic, 0, 10)]
    meta = {"execution_id": "a", "workflow_id": "wf"}
    step = {"step_key": "load", "step_type": "run"}
    assert told == [
        (1, "workflow_start", {"payload": 1, "_metadata": meta}),
        (2, "step_start", {**step, "_metadata": meta}),
        (3, "step_finish", {**step, "result": 5, "_metadata": meta}),
    ]
    await write(store, change("a", 1, ending=ending()))
    await publish(store, event(topic, {"from": "outside"}))
    assert [(e.seq, e.type) for e in await store.events(topic, 3, 10)] == [
        (4, "workflow_finish"),
        (5, None),
    ]


async def test_who_waits_for_the_topic_of_a_tree_hears_of_it(store: Store) -> None:
    topic = "workflow/wf/b"
    await waiting(store, "a", topic, dump_filter({"event_type": "workflow_finish"}))
    assert await store.watched() == [topic]
    await write(store, owned_start("b"))
    await store.derive("b")
    assert await inbox(store) == []
    await write(store, change("b", 1, ending=ending()))
    await store.derive("b")
    (item,) = await inbox(store)
    assert json.loads(item.body or "")["data"]["result"] == "done"


def renewing(id: str, attempt: int, payload: str) -> Told:
    """Return the last change of a run: a step, and what the next run begins with."""
    renewal = Renewal(payload, None, T0, "workflow/wf/root")
    row = done_row(1, f"by {id}", str(attempt))
    return change(
        id, attempt, row, root_id="root", renewal=renewal, status=Status.QUEUED, wake_at=0
    )


async def test_a_topic_keeps_what_a_renewal_cuts_off(store: Store) -> None:
    topic = "workflow/wf/root"
    told_by_second = {"event_type": "step_finish", "data.result": 3}
    await waiting(store, "w", topic, dump_filter(told_by_second))
    await write(store, owned_start("root"), child_start("kid", "root", "root"))
    await write_all(store, renewing("root", 1, "2"), renewing("kid", 1, "20"))
    (work,) = await store.claim("w1", [("root", "root", 2)], {}, T0)
    assert (work.execution.started_at, work.rows) == (T0, [])
    await write_all(store, renewing("root", 3, "3"))
    await store.derive("root")
    found = await store.events(topic, 0, 100)
    assert [each.seq for each in found] == list(range(1, len(found) + 1))
    assert len({each.id for each in found}) == len(found)
    for id, results in (("root", [1, 3]), ("kid", [1])):
        own = [json.loads(each.data) for each in found if each.execution_id == id]
        types = [each.type for each in found if each.execution_id == id]
        assert types == ["workflow_start", *["step_start", "step_finish"] * len(results)]
        assert own[0]["payload"] == 1
        assert [each["result"] for each in own if "result" in each] == results
    (item,) = await inbox(store, "w")
    assert json.loads(item.body or "")["data"]["result"] == 3


async def test_a_refused_renewal_tells_nothing(store: Store) -> None:
    await write(store, owned_start("root"))
    (refused,) = await write(store, renewing("root", 7, "2"))
    assert isinstance(refused, ClaimLost)
    assert await store.events("workflow/wf/root", 0, 10) == []


async def test_renewals_of_one_tree_beside_each_other_tell_all(open_store: Opener) -> None:
    stores = [await open_store() for _ in range(2)]
    kids = [f"kid{n}" for n in range(4)]
    await stores[0].register_worker(worker("w1"))
    await write_all(
        stores[0], owned_start("root"), *(child_start(each, "root", "root") for each in kids)
    )

    async def run(store: Store, id: str) -> None:
        for attempt in range(1, 10, 2):
            await write_all(store, renewing(id, attempt, "1"))
            while not await store.claim("w1", [("root", id, attempt + 1)], {}, T0):
                pass  # the renewal of its parent locks it

    runs = [run(stores[n % 2], id) for n, id in enumerate(["root", *kids])]
    async with asyncio.timeout(30):
        await asyncio.gather(*runs)
    found = await stores[0].events("workflow/wf/root", 0, 100)
    assert [each.seq for each in found] == list(range(1, len(found) + 1))
    for id in ("root", *kids):
        own = [json.loads(each.data) for each in found if each.execution_id == id]
        assert [each["result"] for each in own if "result" in each] == [1, 3, 5, 7, 9]


async def test_publishers_of_several_stores_leave_no_gaps(open_store: Opener) -> None:
    stores = [await open_store() for _ in range(3)]

    async def run(store: Store, topics: Sequence[str]) -> None:
        for _ in range(20):
            await publish(store, *(event(topic) for topic in topics))

    await asyncio.gather(
        run(stores[0], ["x", "y"]), run(stores[1], ["y", "x"]), run(stores[2], ["x"])
    )
    for topic, count in (("x", 60), ("y", 40)):
        found = await stores[0].events(topic, 0, 100)
        assert [each.seq for each in found] == list(range(1, count + 1))


async def test_who_begins_to_wait_beside_publishers_misses_nothing(open_store: Opener) -> None:
    publisher, waiter = await open_store(), await open_store()
    ids = [f"a{n}" for n in range(20)]
    for id in ids:
        await write(waiter, owned_start(id))
    last_before: dict[str, int] = {}

    async def run_waiter() -> None:
        for id in ids:
            await wait_for(waiter, id, "t")
            last_before[id] = (await waiter.last_seqs(["t"]))["t"]

    async def run_publisher() -> None:
        while len(last_before) < len(ids):
            await publish(publisher, event())
        await publish(publisher, event())

    await asyncio.gather(run_waiter(), run_publisher())
    for id in ids:
        (item,) = await inbox(waiter, id)
        # Nothing that came after the wait was stored was passed over.
        assert json.loads(item.body or "")["sequence_id"] <= last_before[id] + 1


async def test_old_events_of_ordinary_topics_go(store: Store) -> None:
    await publish(store, event(at=T0), event(at=T0 + SECOND), event("u", at=T0))
    assert await store.prune_events(T0 + 1) == (2, "")
    assert [each.seq for each in await store.events("t", 0, 10)] == [2]
    assert await publish(store, event("u")) == [2]


@pytest.mark.parametrize("count", [1, 5000])
async def test_the_events_of_a_tree_go_with_it_in_parts(store: Store, count: int) -> None:
    await write(store, owned_start("a"))
    await write(store, change("a", 1, ending=ending()))
    topic = "workflow/wf/a"
    some = [event(topic) for _ in range(count)]
    for each in some:
        each.root_id = "a"
    await publish(store, *some)
    parts = 0
    while (await store.prune(["a"], T0 + SECOND, rows_max=1000)).left:
        parts += 1
    assert (parts > 0) == (count > 1000)
    assert await store.events(topic, 0, 10) == []
    assert await store.topics() == []
    assert await store.execution("a") is None


async def test_a_store_that_only_looks_says_that_a_tree_s_topic_is_behind(
    open_store: Opener, store: Store
) -> None:
    await write(store, owned_start("a"))
    await write(
        store, change("a", 1, Row(1, "run", "x", 0, turn=1, ok=True), status=Status.RUNNING)
    )
    looking = await open_store()
    looking.read_only = True
    with pytest.raises(StoreReadOnlyError):
        await looking.derive("a")
    await store.derive("a")
    await looking.derive("a")
