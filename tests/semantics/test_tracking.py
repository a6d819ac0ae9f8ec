"""The tracker alone: any recorded state can be put back, in any order, whatever was kept of it."""

import pytest

from polos.core import delta
from polos.core.model import StateEntry
from polos.errors import EncodeError
from polos.worker import tracking
from polos.worker.tracking import Tracker
from polos.workflow.state import StateSchema, WorkflowState


class Diary(WorkflowState):
    count: int = 0
    notes: list[str] = []


SCHEMA = StateSchema(Diary)


def recorded(numbers: int) -> tuple[list[StateEntry], list[Diary]]:
    """Return the entries of a state that grew, and what it was at each of them."""
    state = Diary()
    tracker = Tracker(SCHEMA, [StateEntry(0, None, 0, delta.document(SCHEMA.dump(state)))])
    entries = [StateEntry(0, None, 0, delta.document(SCHEMA.dump(state)))]
    states = [Diary()]
    for number in range(1, numbers + 1):
        live = tracker.model
        assert isinstance(live, Diary)
        live.count += 1
        live.notes.append(f"note {number}")
        tracker.seen(f"s{number}", float(number))
        entry = tracker.capture(f"s{number}", number)
        assert entry is not None
        entries.append(entry)
        states.append(live.model_copy(deep=True))
    return entries, states


@pytest.mark.parametrize("order", [range(1, 13), [3, 3, 7, 12], [5, 2, 9, 1, 12, 0], [12, 11, 10]])
def test_any_recorded_state_is_put_back_in_any_order(order: list[int]) -> None:
    entries, states = recorded(12)
    tracker = Tracker(SCHEMA, entries)
    for version in order:
        tracker.pin(version)
        assert tracker.model == states[version]
    assert tracker.recorded == SCHEMA.dump(states[12])


def test_a_recorded_state_of_which_nothing_differs_is_not_touched() -> None:
    entries, states = recorded(3)
    tracker = Tracker(SCHEMA, entries)
    tracker.pin(3)
    live = tracker.model
    assert isinstance(live, Diary)
    notes = live.notes
    tracker.pin(3)
    assert live.notes is notes
    live.notes.pop()
    tracker.pin(3)
    assert live.notes is notes
    assert live == states[3]


def test_a_record_of_another_order_or_other_names_is_read_by_name() -> None:
    class Old(WorkflowState):
        first: int = 1
        second: int = 2

    class New(WorkflowState):
        second: int = 2
        first: int = 1

    old, new = StateSchema(Old), StateSchema(New)
    text = delta.document(old.dump(Old(first=3, second=4)))
    tracker = Tracker(
        new, [StateEntry(0, None, 0, text), StateEntry(1, "s", 1, '[["first",0,0,"5"]]')]
    )
    tracker.pin(1)
    live = tracker.model
    assert isinstance(live, New)
    assert live == New(first=5, second=4)
    # In this order the values are those of the record, at other names.
    live.second, live.first = 5, 4
    tracker.pin(1)
    assert live == New(first=5, second=4)


def test_what_a_body_changes_past_its_copy_is_recorded_with_its_step() -> None:
    entries, _ = recorded(1)
    tracker = Tracker(SCHEMA, entries)
    tracker.pin(1)
    live = tracker.model
    assert isinstance(live, Diary)
    live.count = 7
    tracker.seen("a", 1.0)
    live.notes.append("past the copy")
    entry = tracker.capture("a", 2)
    assert entry is not None
    assert delta.apply(delta.apply(delta.split(entries[0].body), entries[1].body), entry.body) == (
        SCHEMA.dump(live)
    )
    assert tracker.capture("b", 3) is None


def taken(tracker: Tracker, key: str, at: int) -> StateEntry:
    """Return what is recorded when the code asks for a step."""
    tracker.seen(key, float(at))
    entry = tracker.capture(key, at)
    assert entry is not None
    return entry


def test_a_value_of_another_type_is_recorded_if_it_can_be_read_and_named_if_not() -> None:
    class Loose(WorkflowState):
        count: int = 0
        ratios: list[float] = []
        words: list[str] = []

    schema = StateSchema(Loose)
    tracker = Tracker(schema, [StateEntry(0, None, 0, delta.document(schema.dump(Loose())))])
    live = tracker.model
    assert isinstance(live, Loose)
    live.ratios.append(1)
    record = delta.apply(schema.dump(Loose()), taken(tracker, "a", 1).body)
    assert record == tracker.recorded == schema.dump(live) == tracker.fields()
    assert schema.load(record) == Loose(ratios=[1.0])
    live.words.append(1)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(EncodeError, match=r"(?s)'words' cannot be recorded: .*words\.0"):
            tracker.seen("b", 2.0)
    assert tracker.recorded == record
    live.words[0] = "1"
    record = delta.apply(record, taken(tracker, "b", 3).body)
    assert schema.load(record) == Loose(ratios=[1.0], words=["1"])


def test_a_state_that_grows_past_what_is_checked_is_recorded_as_it_is() -> None:
    tracker = Tracker(SCHEMA, [StateEntry(0, None, 0, delta.document(SCHEMA.dump(Diary())))])
    live = tracker.model
    assert isinstance(live, Diary)
    record = tracker.recorded
    for number, note in enumerate(["a", "b" * tracking.CHECKED_MAX, "c", "d"]):
        live.notes.append(note)
        live.count += 1
        record = delta.apply(record, taken(tracker, f"s{number}", number).body)
        assert record == SCHEMA.dump(live)
    live.notes.clear()
    assert delta.apply(record, taken(tracker, "less", 9).body) == SCHEMA.dump(live)


def test_the_order_of_the_class_is_recorded_with_the_next_change() -> None:
    class Pair(WorkflowState):
        second: int = 2
        first: int = 1

    schema = StateSchema(Pair)
    tracker = Tracker(schema, [StateEntry(0, None, 0, '{"first":1,"second":2}')])
    live = tracker.model
    assert isinstance(live, Pair)
    live.first = 7
    record = delta.apply(tracker.recorded, taken(tracker, "a", 1).body)
    assert list(record.items()) == [("second", b"2"), ("first", b"7")]
    live.second = 8
    record = delta.apply(record, taken(tracker, "b", 2).body)
    assert list(record.items()) == [("second", b"8"), ("first", b"7")]
