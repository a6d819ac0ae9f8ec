"""Conditions: what is read, what fits, and that ranks sort as the values do."""

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos.core import where
from polos.core.paths import MISSING
from polos.errors import UsageError

NUMBERS = (
    st.integers()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 10**400, 1e308, 5e-324, 0.1, -0.1])
)


@given(NUMBERS, NUMBERS)
def test_ranks_of_numbers_sort_as_numbers(one: Any, other: Any) -> None:
    # As they are written: 0.1 is a tenth, whatever its nearest binary number is.
    def spelled(value: Any) -> Any:

        return Decimal(value) if isinstance(value, int) else Decimal(repr(value))

    assert (where.rank(one) < where.rank(other)) == (spelled(one) < spelled(other))
    assert (where.rank(one) == where.rank(other)) == (spelled(one) == spelled(other))


@given(st.text(), st.text())
def test_ranks_of_text_sort_as_text_and_have_no_nul(one: str, other: str) -> None:
    assert (where.rank(one) < where.rank(other)) == (one < other)
    assert "\x00" not in where.rank(one)
    assert where.unranked(where.rank(one)) == one


@given(NUMBERS | st.booleans() | st.none())
def test_a_rank_is_read_again(value: Any) -> None:
    assert where.rank(where.unranked(where.rank(value))) == where.rank(value)
    assert type(where.unranked(where.rank(7))) is int


def test_kinds_are_never_equal() -> None:
    values: list[Any] = [None, False, True, 0, 1, "", "1", "true", math.inf, -math.inf]
    assert len({where.rank(value) for value in values}) == len(values)
    assert where.rank(1) == where.rank(1.0)


@pytest.mark.parametrize(
    ("asked", "found", "fits"),
    [
        (3, 3.0, True),
        (3, "3", False),
        (True, 1, False),
        (None, None, True),
        (None, MISSING, False),
        (("!=", 3), 4, True),
        (("!=", 3), [3], True),
        (("!=", 3), MISSING, False),
        ((">", 3), 10, True),
        ((">", 3), "4", False),
        (("<=", "b"), "a", True),
        (("in", [1, "x"]), "x", True),
        (("in", []), 1, False),
        (("contains", "x"), ["y", "x"], True),
        (("contains", 1), [True], False),
        (("contains", "el"), "hello", True),
        (("contains", "k"), {"k": 1}, True),
        (("contains", 1), 1, False),
        (("exists", True), None, True),
        (("exists", False), MISSING, True),
        (("exists",), 1, True),
        ([(">", 3), ("<", 5)], 4, True),
        ([(">", 3), ("<", 5)], 5, False),
    ],
)
def test_what_fits(asked: Any, found: Any, fits: bool) -> None:
    parsed = where.parse({"state.x": asked})
    assert all(where.fits(each, found) for each in parsed) == fits


@pytest.mark.parametrize(
    "asked",
    [
        5,
        {"x": 1},
        {"steps": 1},
        {"created_at.x": 1},
        {3: 1},
        {"state.a": ("~", 1)},
        {"state.a": ("in", "ab")},
        {"state.a": ("in", 3)},
        {"state.a": [1, 2]},
        {"state.a": ()},
        {"state.a": ("<",)},
        {"state.a": ("<", None)},
        {"state.a": (">", True)},
        {"state.a": {"b": 1}},
        {"state.a": float("nan")},
        {"state.a": datetime(2026, 1, 1, tzinfo=UTC)},
        {"state.a": ("exists", 1)},
        {"state.a": "\ud800"},
        {'state["\\u0000"]': 1},
        {"status": 3},
        {"status": "done"},
        {"status": ("in", ["failed", "done"])},
        {"status": "\x00"},
        {"created_at": "yesterday"},
        {"created_at": "2026-01-01T00:00:00"},
        {"created_at": ("contains", "2026")},
        {"state.a": ("in", list(range(2000)))},
        {f"state.x{n}": n for n in range(60)},
        {"state.a' OR '1'='1": 1},
        {"state.a); DROP TABLE execution; --": 1},
    ],
)
def test_what_cannot_be_read_is_refused(asked: Any) -> None:
    with pytest.raises(UsageError):
        where.parse(asked)


def test_times_are_moments() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    for value in (moment, "2026-01-01T13:00:00+01:00"):
        (found,) = where.parse({"created_at": (">", value)})
        assert found.value == round(moment.timestamp() * 1e6)
