"""Which chunks are new on their topic, whatever attempts bring them again."""

from polos.core.model import Event
from polos.core.streams import CHUNK, END, ENDED_MAX, RESET, StreamEvent, admit


def chunk(number: int = 0, key: str | None = None, type: str = CHUNK, generation: int = 0) -> Event:
    event = StreamEvent("t", f"{generation}/{number}/{key}", type, "{}", 0)
    event.number, event.step_key, event.generation = number, key, generation
    return event


def brought(*batches: list[Event]) -> tuple[list[str], str]:
    """Return what is on a topic after some commits."""
    cursor: str | None = None
    found: list[str] = []
    for batch in batches:
        kept, cursor = admit(cursor, batch)
        found += [f"{event.type} {event.id}" for event in kept]
    assert cursor is not None
    return found, cursor


def test_chunks_around_the_steps_are_there_once() -> None:
    first = [chunk(1), chunk(2)]
    again = [chunk(1), chunk(2), chunk(3)]
    assert brought(first, again, again)[0] == [f"chunk 0/{n}/None" for n in (1, 2, 3)]


def test_a_generation_counts_from_the_beginning() -> None:
    found, cursor = brought([chunk(1), chunk(2)], [chunk(1, generation=1)], [chunk(2)])
    assert found == ["chunk 0/1/None", "chunk 0/2/None", "chunk 1/1/None"]
    assert cursor == "[1,1,{}]"


def test_a_reset_is_for_a_step_that_has_chunks() -> None:
    mark, own = chunk(key="s", type=RESET), chunk(key="s")
    assert brought([mark, own], [mark, mark, own])[0] == [
        "chunk 0/0/s",
        "reset 0/0/s",
        "chunk 0/0/s",
    ]


def test_a_step_that_has_ended_may_begin_again() -> None:
    """A failed execution that is retried runs it anew."""
    mark, own, end = (chunk(key="s", type=type) for type in (RESET, CHUNK, END))
    found, cursor = brought([own, end], [mark, own])
    assert [each.split()[0] for each in found] == ["chunk", "end", "reset", "chunk"]
    assert cursor == '[0,0,{"s":false}]'


def test_the_cursor_stays_small() -> None:
    steps = [f"s{n}" for n in range(10 * ENDED_MAX)]
    done = [[chunk(key=key), chunk(key=key, type=END)] for key in steps]
    _, cursor = brought([chunk(key="open")], *done)
    assert len(cursor) < 2000
    for key in ("open", steps[-1]):
        assert len(admit(cursor, [chunk(key=key, type=RESET)])[0]) == 1


def test_events_that_others_publish_there_pass() -> None:
    event = Event("t", "e", "news", "{}", 0)
    assert admit(None, [event, chunk(1)])[0] == [event, chunk(1)]
