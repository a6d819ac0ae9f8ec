"""Paths into JSON, such as `customer.name`, `legs[0].to`, `by_name["a.b"]`: read and written."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from polos.errors import UsageError

Path = tuple[str | int, ...]

PARTS_MAX = 64
_PLAIN = re.compile(r"[^\W\d][\w-]*|\d+")
_NAME, _BRACKETS = r"([^\W\d][\w-]*|\d+)", r'|\[(-?\d+)\]|\[("(?:[^"\\]|\\.)*")\]'
_FIRST = re.compile(_NAME + _BRACKETS)
_PART = re.compile(r"\." + _NAME + _BRACKETS)
MISSING: Any = object()
"""What `value_at` finds where nothing is."""


def parse(text: Any) -> Path:
    """Read a path: names with dots between, `[0]` an index, `["any name"]` a name in quotes.

    `legs.0` means the same as `legs[0]`, or the key `0` if `legs` is an object. UsageError says
    where the text is no path.
    """
    if not isinstance(text, str):
        raise UsageError(f"path {text!r}: expected text such as customer.name or legs[0].to")
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        found = (_PART if parts else _FIRST).match(text, at)
        if found is None or len(parts) == PARTS_MAX:
            raise _no_path(text, at)
        parts.append(_part(text, at, found))
        at = found.end()
    if not parts:
        raise _no_path(text, 0)
    return tuple(parts)


def _part(text: str, at: int, found: re.Match[str]) -> str | int:
    name, index, quoted = found.groups()
    if name is not None:
        return str(name)
    if index is not None:
        return int(index)
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise _no_path(text, at) from None


def _no_path(text: str, at: int) -> UsageError:
    return UsageError(
        f"path {text!r}: cannot be read from character {at + 1} on; expected names with dots "
        'between them, such as customer.name, legs[0].to or by_name["a.b"]'
    )


def spell(path: Sequence[str | int]) -> str:
    """Return a path as text that `parse` reads."""
    parts: list[str] = []
    for each in path:
        if isinstance(each, int):
            parts.append(f"[{each}]")
        elif _PLAIN.fullmatch(each) and not each.isdigit():
            parts.append(f".{each}" if parts else each)
        else:
            parts.append(f"[{json.dumps(each, ensure_ascii=False)}]")
    return "".join(parts)


def value_at(value: Any, path: Sequence[str | int]) -> Any:
    """Return what is at a path, or `MISSING`."""
    for each in path:
        if isinstance(value, dict):
            value = value.get(str(each), MISSING)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        elif isinstance(value, list):
            value = _item(value, each)  # pyright: ignore[reportUnknownArgumentType]
        else:
            return MISSING
        if value is MISSING:
            return MISSING
    return value  # pyright: ignore[reportUnknownVariableType]


def _item(values: list[Any], each: str | int) -> Any:
    if isinstance(each, str) and not each.isdecimal():
        return MISSING
    place = int(each)
    return values[place] if -len(values) <= place < len(values) else MISSING
