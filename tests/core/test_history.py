"""Past state: marks and jumps, changes for people, paths; against a model in memory."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polos.core import delta, history, paths
from polos.core.model import StateEntry
from polos.errors import UsageError
from polos.worker.tracking import CHAIN_MAX, MARK_EVERY, Tracker
from polos.workflow.state import StateSchema, WorkflowState

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text('aé"\\\n0', max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.", max_size=2), inner),
    max_leaves=8,
)
STATES = st.dictionaries(st.sampled_from(["a", "b", "c d"]), JSON)


def record(state: dict[str, Any]) -> delta.Fields:
    return delta.split(json.dumps(state, ensure_ascii=False))


def bodies(states: list[dict[str, Any]]) -> list[str]:
    found = [delta.document(record(states[0]))]
    for before, after in itertools.pairwise(states):
        found.append(delta.diff(record(before), record(after)) or "[]")
    return found


@given(st.lists(STATES, min_size=1, max_size=12))
def test_a_replay_is_what_one_delta_after_the_other_makes(states: list[dict[str, Any]]) -> None:
    assert history.decoded(delta.replay(bodies(states))) == states[-1]
    assert list(delta.replay(bodies(states))) == list(record(states[-1]))


@given(
    st.text("ab", max_size=40), st.lists(st.tuples(st.integers(0, 40), st.text("cé", max_size=3)))
)
def test_a_replay_of_scattered_cuts_is_byte_for_byte_the_same(
    text: str, cuts: list[tuple[int, str]]
) -> None:
    values = [text]
    for place, more in cuts:
        at = place % (len(values[-1]) + 1)
        values.append(values[-1][:at] + more + values[-1][at + 1 :])
    states = [{"a": value} for value in values]
    assert delta.document(delta.replay(bodies(states))) == delta.document(record(states[-1]))


@given(STATES, STATES)
def test_changes_lead_from_one_state_to_the_other(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    for change in history.changes(one, other):
        path = paths.parse(change["path"])
        before, after = paths.value_at(one, path), paths.value_at(other, path)
        if change["op"] == "replace":
            assert (change["old"], change["new"]) != (None, None) or before != after
        if change["op"] == "add":
            assert change["old"] is None
    assert history.changes(one, one) == []
    assert (history.changes(one, other) == []) == (
        json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    )


def test_changes_say_what_and_where() -> None:
    old = {"n": 1, "notes": ["a", "b"], "by": {"x.y": 1, "z": 2}, "gone": 1}
    new = {"n": 1.0, "notes": ["b", "c", "d"], "by": {"x.y": True, "new": None}}
    assert history.changes(old, new) == [
        {"op": "remove", "path": "gone", "old": 1, "new": None},
        {"op": "replace", "path": "n", "old": 1, "new": 1.0},
        {"op": "replace", "path": "notes[0]", "old": "a", "new": "b"},
        {"op": "replace", "path": "notes[1]", "old": "b", "new": "c"},
        {"op": "add", "path": "notes[2]", "old": None, "new": "d"},
        {"op": "remove", "path": "by.z", "old": 2, "new": None},
        {"op": "replace", "path": 'by["x.y"]', "old": 1, "new": True},
        {"op": "add", "path": "by.new", "old": None, "new": None},
    ]


def test_what_is_taken_from_the_front_is_one_change() -> None:
    assert history.changes([1, 2, 3], [2, 3]) == [
        {"op": "remove", "path": "[0]", "old": 1, "new": None}
    ]


@given(st.lists(st.text(max_size=4) | st.integers(0, 9), min_size=1, max_size=5))
def test_a_path_that_is_spelled_is_read_again(path: list[str | int]) -> None:
    text = paths.spell(path)
    assert paths.parse(text) == tuple(path)


@pytest.mark.parametrize(
    "text", ["", ".a", "a.", "a..b", "a[", "a[x]", 'a["', "a b", "a'", "a;--", "[1.5]", "a[]", 3]
)
def test_what_is_no_path_is_refused(text: Any) -> None:
    with pytest.raises(UsageError, match="path"):
        paths.parse(text)


class Big(WorkflowState):
    n: int = 0
    items: list[int] = []


def track(count: int, items: int, scattered: bool = False) -> list[StateEntry]:
    """Return the entries of a state that changes so often."""
    schema = StateSchema(Big)
    first = delta.document(schema.dump(Big(items=list(range(1000, 1000 + items)))))
    entries = [StateEntry(0, None, 0, first)]
    tracker = Tracker(schema, entries)
    model: Any = tracker.model
    for number in range(count):
        if scattered:
            model.items[number * 7919 % items] = number % 1000
        else:
            model.items.append(number)
        model.n += 1
        entry = tracker.capture("s", number)
        assert entry is not None
        entries.append(entry)
    return entries


def read_for(entries: list[StateEntry], version: int) -> list[str]:
    """Return what a store reads for a version, as the stores do."""
    marks: list[StateEntry] = []
    for entry in reversed(entries[: version + 1]):
        if entry.jump is not None or entry.body.startswith("{"):
            marks.append(entry)
            if entry.jump is None:
                break
    marks.reverse()
    behind = entries[marks[-1].version + 1 : version + 1]
    return [entry.jump or entry.body for entry in (*marks, *behind)]


@pytest.mark.parametrize("scattered", [False, True])
def test_any_version_is_read_in_few_entries_and_is_the_same(scattered: bool) -> None:
    entries = track(1500, 2000, scattered)
    fields = delta.split(entries[0].body)
    for version, entry in enumerate(entries):
        fields = delta.apply(fields, entry.body) if version else fields
        if version % 37 == 0 or version == len(entries) - 1:
            read = read_for(entries, version)
            assert len(read) <= CHAIN_MAX + 1
            assert delta.document(delta.replay(read)) == delta.document(fields)
    assert scattered or any(entry.jump for entry in entries)


def test_bytes_grow_with_the_change_however_large_the_state_is() -> None:
    entries = track(1000, 100_000)
    assert len(entries[0].body) > 500_000
    grown = sum(len(entry.body) + len(entry.jump or "") for entry in entries[1:])
    assert grown / 1000 < 100
    assert len(read_for(entries, 1000)) <= 1000 // MARK_EVERY + MARK_EVERY


def test_an_attempt_goes_on_with_the_marks_of_the_one_before() -> None:
    entries = track(200, 5000)
    tracker = Tracker(StateSchema(Big), list(entries))
    model: Any = tracker.model
    for number in range(200):
        model.items.append(number)
        entry = tracker.capture("s", number)
        assert entry is not None
        entries.append(entry)
    fields = delta.split(entries[0].body)
    for entry in entries[1:]:
        fields = delta.apply(fields, entry.body)
    assert delta.replay(read_for(entries, 400)) == fields
    assert sum(1 for entry in entries if entry.jump) == 400 // MARK_EVERY


@settings(max_examples=50)
@given(st.lists(STATES, min_size=2, max_size=8), st.sampled_from(["a", "b", "b.a", "a[0]"]))
def test_blame_finds_the_last_change(states: list[dict[str, Any]], text: str) -> None:
    path = paths.parse(text)
    entries = [StateEntry(n, None, n, body) for n, body in enumerate(bodies(states))]
    found = history.last_change({}, entries, path)
    seen = [paths.value_at(each, path) for each in ({}, *states)]

    def text_of(value: Any) -> str | None:
        return None if value is paths.MISSING else json.dumps(value, sort_keys=True)

    changed = [n for n in range(len(states)) if text_of(seen[n]) != text_of(seen[n + 1])]
    assert (None if found is None else found[0].version) == (changed[-1] if changed else None)
