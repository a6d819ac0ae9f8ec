"""Changes that step bodies make to JSON: they fit a state that has moved on (JOURNAL 13)."""

import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos.core.merge import Path, Sort, changes, merge, same

KEYS = st.sampled_from(["a", "b", "c"]) | st.text(max_size=2)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "x", "1.50", "-0.1", "NaN", "1E+5", 10**400, 1.0, -0.0])
    | st.text(max_size=3)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SORTS: list[Sort] = ["", "members", "decimal", "names"]


def stored(ops: Any) -> Any:
    """Return the operations as the journal gives them back."""
    return json.loads(json.dumps(ops))


def by_length(path: Path) -> Sort:
    return SORTS[len(path) % 4]


def unique(value: Any) -> bool:
    """Tell whether no array holds anything twice, as the arrays of sets do not."""
    if isinstance(value, list):
        return len({json.dumps(each, sort_keys=True) for each in value}) == len(value) and all(
            map(unique, value)
        )
    return all(map(unique, value.values())) if isinstance(value, dict) else True


def in_any_order(value: Any) -> Any:
    """Return the value with its arrays sorted."""
    if isinstance(value, list):
        return sorted(map(in_any_order, value), key=lambda each: json.dumps(each, sort_keys=True))
    if isinstance(value, dict):
        return {key: in_any_order(each) for key, each in value.items()}
    return value


@given(JSON, JSON)
def test_changes_lead_from_any_value_to_any_other(base: Any, new: Any) -> None:
    untouched = copy.deepcopy((base, new))
    ops = changes(base, new)
    assert (ops == []) is (repr(base) == repr(new))
    assert repr(merge(stored(ops), base)) == repr(new)
    assert same([base, new], list(untouched))


@given(JSON.filter(unique), JSON.filter(unique))
def test_changes_lead_to_the_other_value_whatever_the_places_are(base: Any, new: Any) -> None:
    ops = changes(base, new, by_length)
    assert same(in_any_order(merge(stored(ops), base)), in_any_order(new))


@given(JSON, JSON, JSON)
def test_changes_fit_any_value(base: Any, new: Any, other: Any) -> None:
    for ops in (changes(base, new), changes(base, new, by_length)):
        untouched = copy.deepcopy((ops, other))
        merged = merge(ops, other)
        json.dumps(merged)
        assert same([ops, other], list(untouched))


@given(*[st.dictionaries(st.sampled_from("abcdef"), JSON) for _ in "xyz"], st.sets(KEYS))
def test_changes_of_different_keys_commute(
    base: dict[str, Any], one: dict[str, Any], other: dict[str, Any], mine: set[str]
) -> None:
    def edited(edit: dict[str, Any], mine: bool) -> dict[str, Any]:
        return {
            key: value
            for key in "abcdef"
            for source in [edit if (key in keys) is mine else base]
            for value in [source.get(key, ...)]
            if value is not ...
        }

    keys = mine
    first, second = changes(base, edited(one, True)), changes(base, edited(other, False))
    there = merge(second, merge(first, base))
    back = merge(first, merge(second, base))
    assert same(there, back)
    assert all(key in keys or same(there[key], other[key]) for key in other)
    assert all(key not in keys or same(there[key], one[key]) for key in one)


@given(st.permutations("abcdef"), st.permutations("cdefgh"))
def test_changes_keep_the_order_of_keys(base: list[str], new: list[str]) -> None:
    before, after = dict.fromkeys(base[:4], 1), dict.fromkeys(new[:4], 1)
    assert list(merge(changes(before, after), before)) == list(after)
    assert repr(merge(changes([before], [after, 1]), [before])) == repr([after, 1])


def test_a_key_that_moved_still_adds_up() -> None:
    used = changes({"a": 1, "b": 1}, {"b": 1, "a": 2})
    merged = merge(used, {"a": 5, "b": 1, "c": 0})
    assert list(merged.items()) == [("b", 1), ("c", 0), ("a", 6)]
    assert merge(used, {}) == {"a": 2}
    assert merge(used, None) is None


@pytest.mark.parametrize(
    ("base", "one", "other", "both"),
    [
        (1, 3, 0, 2),
        (1, 2, 2, 3),
        (0.5, 0.75, 1.5, 1.75),
        (1, 1.5, 3, 3.5),
        ([], ["a"], ["b"], ["a", "b"]),
        ([1], [1, 2], [1, 2], [1, 2, 2]),
        ([[1]], [[1, 2]], [[1, 3]], [[1, 2, 3]]),
        ([0, 0], [1, 0], [2, 5], [3, 5]),
        ({"n": 1}, {"n": 2}, {"n": 1, "m": 5}, {"n": 2, "m": 5}),
        ({"n": {"m": 1}}, {"n": {"m": 2}}, {"n": {"m": 4}}, {"n": {"m": 5}}),
        ({}, {"n": 1}, {"n": 1}, {"n": 2}),
        ({}, {"n": ["a"]}, {"n": ["b"]}, {"n": ["a", "b"]}),
        ({}, {"n": {"a": 1, "b": "x"}}, {"n": {"a": 2, "b": "y"}}, {"n": {"a": 3, "b": "y"}}),
        ({"n": 1}, {}, {"n": 2}, {"n": 2}),
        ({"n": 1}, {"n": 2}, {}, {}),
        ({"n": {"m": 1}}, {}, {"n": {"m": 2}}, {}),
        ({"n": [1]}, {"n": None}, {"n": [1, 2]}, {"n": [2]}),
        ([1, 2], [], [1, 3], []),
        ([1, 2], [1, 2, 3], [2], [2]),
        ("a", "b", "c", "c"),
        (1, "b", 2, 2),
        (1, True, 2, 2),
        (None, 1, 2, 2),
        (1.0, float("inf"), 2.0, float("inf")),
        (0.0, 1e308, 1e308, float("inf")),
        (1, 10**400, 1.5, 1.5),
    ],
)
def test_two_changes_of_one_place(base: Any, one: Any, other: Any, both: Any) -> None:
    merged = merge(changes(base, one), base)
    merged = merge(changes(base, other), merged)
    assert same(merged, both)


@pytest.mark.parametrize(
    ("sort", "base", "one", "other", "both"),
    [
        ("members", [1, 3], [1, 2, 3], [0, 3], [0, 2, 3]),
        ("members", [], ["b"], ["a", "b"], ["a", "b"]),
        ("members", ["a"], [], ["a", "b"], ["b"]),
        ("decimal", "1.50", "2.00", "1.75", "2.25"),
        ("decimal", "1.50", "x", "1.75", "1.75"),
        ("decimal", None, "1.50", "1.75", "1.75"),
        ("names", 1, 2, 3, 3),
    ],
)
def test_two_changes_of_a_place_that_is_more_than_json_shows(
    sort: Sort, base: Any, one: Any, other: Any, both: Any
) -> None:
    base, one, other, both = ({"x": each} for each in (base, one, other, both))
    merged = merge(changes(base, one, lambda path: sort if path == ["x"] else ""), base)
    merged = merge(changes(base, other, lambda path: sort if path == ["x"] else ""), merged)
    assert in_any_order(merged) == both


@pytest.mark.parametrize(
    ("sort", "one", "other", "both"),
    [
        ("members", ["a", "b"], ["b", "c"], ["a", "b", "c"]),
        ("decimal", "1.5", "0.50", "2.00"),
        ("names", {"state": 1}, {"state": 1}, {"state": 1}),
    ],
)
def test_two_new_keys_are_joined_by_what_they_are(
    sort: Sort, one: Any, other: Any, both: Any
) -> None:
    merged: Any = {}
    for value in (one, other):
        merged = merge(
            changes({}, {"x": value}, lambda path: sort if path == ["x"] else ""), merged
        )
    assert merged == {"x": both}


@given(st.integers(), st.lists(st.integers()))
def test_increments_are_exact(start: int, steps: list[int]) -> None:
    value: Any = start
    for step in steps:
        value = merge(changes(start, start + step), value)
    assert value == start + sum(steps)


@given(st.decimals(-(10**9), 10**9, places=2), st.lists(st.integers(-(10**6), 10**6)))
def test_decimal_increments_are_exact(start: Decimal, cents: list[int]) -> None:
    value: Any = {"x": str(start)}
    for cent in cents:
        grown = str(start + Decimal(cent) / 100)
        ops = changes({"x": str(start)}, {"x": grown}, lambda path: "decimal" if path else "")
        value = merge(ops, value)
    assert Decimal(value["x"]) == start + Decimal(sum(cents)) / 100


def test_the_operations_are_a_journal_format() -> None:
    base = {"n": 1, "s": "a", "l": [1], "gone": 0, "in": {"x": [1, 2]}}
    new = {"n": 3, "s": "b", "l": [1, 2], "in": {"x": [1, 4]}, "more": True}
    assert changes(base, new) == [
        ["del", ["gone"]],
        ["add", ["n"], 2, 3],
        ["set", ["s"], "b"],
        ["append", ["l"], [2]],
        ["add", ["in", "x", 1], 2, 4],
        ["new", ["more"], True],
    ]
    sorts: dict[str, Sort] = {"s": "members", "d": "decimal"}
    assert changes(
        {"s": [1, 2], "d": "1.0"}, {"s": [2, 3], "d": "1.5"}, lambda path: sorts[str(path[-1])]
    ) == [["drop", ["s"], [1]], ["put", ["s"], [3]], ["sum", ["d"], "0.5", "1.5"]]


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0.0, -0.0), ([1], [True])])
def test_types_are_part_of_a_value(one: Any, other: Any) -> None:
    assert not same(one, other)
    assert same(merge(changes(one, other), one), other)


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(KeyError):
        merge([["later", ["a"], 1]], {"a": 1})
