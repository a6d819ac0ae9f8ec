"""Ages such as `"30d"`: how long something is kept, read and written."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from polos.errors import UsageError

FOREVER = math.inf
SECONDS_MIN = 1.0
SECONDS_MAX = 100 * 365 * 86_400.0

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGE = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:s|min|m|h|d|w)\s*)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(min|s|m|h|d|w)")

Age = str | timedelta | float
"""`"90s"`, `"15m"`, `"12h"`, `"30d"`, `"2w"`, `"1d 12h"`, `"forever"`, a timedelta, or seconds."""


def parse(name: str, value: Any) -> float:
    """Return an age in seconds, infinity for `"forever"`; `name` is what the message calls it.

    UsageError unless it is between a second and a hundred years.
    """
    seconds = _seconds(value)
    if seconds is None or not (SECONDS_MIN <= seconds <= SECONDS_MAX or seconds == FOREVER):
        raise UsageError(
            f"{name}={value!r}: expected an age such as '12h', '30d' or '1d 12h' (units s, m, h, "
            "d, w), a timedelta, a number of seconds, or 'forever'; from 1 second to 100 years"
        )
    return seconds


def parse_optional(name: str, value: Any) -> float | None:
    """Do the same, and leave None as it is."""
    return None if value is None else parse(name, value)


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if not isinstance(value, str):
        return float(value)
    text = value.strip().lower()
    if text == "forever":
        return FOREVER
    if not _AGE.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
