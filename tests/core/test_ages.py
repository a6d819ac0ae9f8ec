"""Ages: what is understood, and what is refused."""

import math
from datetime import timedelta
from typing import Any

import pytest

from polos.core import ages
from polos.errors import UsageError


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("1s", 1),
        ("90 s", 90),
        ("15m", 900),
        ("15 min", 900),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2W", 1_209_600),
        ("1d12h", 129_600),
        (" 1d 30m ", 88_200),
        ("1.5h", 5400),
        (60, 60),
        (2.5, 2.5),
        (timedelta(days=2, seconds=1), 172_801),
        ("forever", math.inf),
    ],
)
def test_an_age_is_read(given: Any, seconds: float) -> None:
    assert ages.parse("retention", given) == seconds


@pytest.mark.parametrize(
    "given",
    [
        *("", "d", "30", "30 days", "-1d", "1y", "0d", "d30", "1d,2h", "never", "nan", "200000d"),
        *(0, -1, 0.5, math.nan, -math.inf, 10**12, True, [], None, b"1d"),
        *(timedelta(0), timedelta(days=-1)),
    ],
)
def test_anything_else_is_refused_by_name(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^retention=.*'30d'"):
        ages.parse("retention", given)


def test_nothing_is_nothing() -> None:
    assert ages.parse_optional("retention", None) is None
    assert ages.parse_optional("retention", "1m") == 60
