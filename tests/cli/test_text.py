"""How values look."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos.cli import text

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "now"),
        (-0.4, "now"),
        (12, "12 s ago"),
        (59.7, "1 min ago"),
        (200, "3 min ago"),
        (7_300, "2 h ago"),
        (200_000, "2 d ago"),
        (-259_190, "in 3 d"),
        (-30, "in 30 s"),
    ],
)
def test_a_moment_is_shown_in_its_largest_unit(seconds: float, shown: str) -> None:
    assert text.ago(NOW - timedelta(seconds=seconds), NOW) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "<1 ms"),
        (0.0004, "<1 ms"),
        (0.0124, "12 ms"),
        (0.9999, "1.0 s"),
        (2.44, "2.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7_500, "2 h 5 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert text.took(seconds) == shown


def test_without_a_begin_there_is_no_duration() -> None:
    assert text.between(None, None, NOW) == ""
    assert text.between((NOW - timedelta(seconds=2)).isoformat(), None, NOW) == "2.0 s"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert text.clean("a\x1b[31m\x9b\x7f\nb") == r"a\u001b[31m\u009b\u007f\nb"
    assert text.clean("a\nb\x07", lines=True) == "a\nb\\u0007"
    assert text.clean("ünï ✓") == "ünï ✓"


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_all_that_is_shown_as_json_is_json_and_safe_to_print(value: Any) -> None:
    for shown in (text.pretty(value), text.document(value)):
        assert json.loads(shown) == text.finite(value)
        assert all(line.isprintable() for line in shown.split("\n"))


def test_what_fits_on_a_line_stays_on_one() -> None:
    assert text.pretty({"a": {"b": [1, 2]}}) == '{"a": {"b": [1, 2]}}'
    assert text.pretty({"a": "x" * 60, "b": [1, 2]}) == (
        '{\n  "a": "' + "x" * 60 + '",\n  "b": [1, 2]\n}'
    )
    assert text.compact("x" * 100, 10) == '"' + "x" * 8 + "…"
