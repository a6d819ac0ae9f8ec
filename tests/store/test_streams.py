"""Chunks in a store: with their change or not at all, each once."""

from polos.core.events import stream_topic
from polos.core.model import Ending, Event, Row, Status
from polos.core.streams import CHUNK, END, RESET, StreamEvent
from polos.store.protocol import Store
from tests.store.records import T0, change, child_start, done_row, owned_start, write, write_all


def chunk(
    number: int = 0,
    key: str | None = None,
    type: str = CHUNK,
    *,
    id: str = "a",
    root_id: str = "a",
    attempt: int = 1,
) -> Event:
    name = f"{type}/{key}/{attempt}/{number}"
    event = StreamEvent(stream_topic(root_id, id), name, type, '{"data":1}', T0)
    event.root_id, event.execution_id, event.step_key, event.number = root_id, id, key, number
    return event


async def streamed(store: Store, id: str = "a", root_id: str = "a") -> list[str]:
    found = await store.events(stream_topic(root_id, id), 0, 1000)
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [event.id for event in found]


async def test_chunks_come_with_their_change(store: Store) -> None:
    await write_all(store, owned_start("a"))
    row = done_row(1, "s")
    await write_all(store, change("a", 1, row, events=[chunk(1), chunk(0, "s"), chunk(2)]))
    assert await streamed(store) == ["chunk/None/1/1", "chunk/s/1/0", "chunk/None/1/2"]


async def test_a_change_of_chunks_alone_is_written(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, events=[chunk(1)]))
    assert await streamed(store) == ["chunk/None/1/1"]


async def test_a_change_that_is_refused_streams_nothing(store: Store) -> None:
    await write_all(store, owned_start("a"), owned_start("b"))
    results = await write(
        store,
        change("a", 7, events=[chunk(1)]),
        change("b", 1, events=[chunk(1, id="b", root_id="b")]),
    )
    assert isinstance(results[0], Exception)
    assert results[1] is None
    assert await streamed(store) == []
    assert await streamed(store, "b", "b") == ["chunk/None/1/1"]


async def test_what_an_attempt_brings_again_is_left_out(store: Store) -> None:
    await write_all(store, owned_start("a"))
    await write_all(store, change("a", 1, events=[chunk(1), chunk(2), chunk(1, "s")]))
    await write_all(store, change("a", 1, events=[chunk(1), chunk(2)]))
    again = [chunk(1), chunk(2), chunk(1, "s", RESET), chunk(2, "t", RESET), chunk(3, "s")]
    await write_all(store, change("a", 1, Row(1, "run", "s", 0), events=[*again, chunk(3)]))
    assert await streamed(store) == [
        *("chunk/None/1/1", "chunk/None/1/2", "chunk/s/1/1"),
        *("reset/s/1/1", "chunk/s/1/3", "chunk/None/1/3"),
    ]


async def test_the_last_chunks_come_with_the_ending(store: Store) -> None:
    await write_all(store, owned_start("a"))
    end = Ending(Status.COMPLETED, "1", None, T0)
    await write_all(store, change("a", 1, events=[chunk(1), chunk(0, "s", END)], ending=end))
    assert await streamed(store) == ["chunk/None/1/1", "end/s/1/0"]


async def test_the_streams_of_a_tree_go_in_parts_with_it(store: Store) -> None:
    await write_all(store, owned_start("a"))
    names = [f"c{n:02}" for n in range(12)]
    starts = [child_start(name, "a", "a") for name in names]
    await write_all(store, change("a", 1, starts=starts, events=[chunk(1)]))
    end = Ending(Status.COMPLETED, "1", None, T0)
    for name in names:
        own = [chunk(1, id=name), chunk(2, id=name)]
        await write_all(store, change(name, 1, root_id="a", events=own, ending=end))
    await write_all(store, change("a", 1, ending=end), owned_start("b"))
    await write_all(store, change("b", 1, events=[chunk(1, id="b", root_id="b")]))
    left, rows = ["a"], 0
    while left:
        done = await store.prune(left, T0 + 1, rows_max=20)
        left, rows = done.left, rows + done.rows
    assert rows == 13 + 25
    assert [each.name for each in await store.topics()] == [stream_topic("b", "b")]
    assert await streamed(store) == []
