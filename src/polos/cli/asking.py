"""Conditions on the command line: `--where 'state.done>3'` as the client reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from polos.core.where import TEXTS
from polos.errors import UsageError

_PLACE = r'((?:[^"<>=!\s]|"(?:[^"\\]|\\.)*")+)'
_CONDITION = re.compile(
    rf"\s*{_PLACE}\s*(?:(<=|>=|!=|==|=|<|>)|\s(in|contains)\s|\s(not\s+exists|exists)\s*$)\s*(.*)",
    re.DOTALL,
)


def conditions(given: Iterable[str]) -> dict[str, Any] | None:
    """Read conditions; None if there are none. All of them must hold."""
    found: dict[str, Any] = {}
    for text in given:
        name, pair = condition(text)
        found.setdefault(name, []).append(pair)
    return found or None


def condition(text: str) -> tuple[str, tuple[str, Any]]:
    """Read one condition: `place op value`; a value is JSON, or else plain text."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--where {text!r}: expected a place, an operator and a value, such as state.done>3, "
            "'tags.team in a,b', 'state.notes contains x' or 'state.total exists'"
        )
    place, sign, word, exists, rest = match.groups()
    if exists is not None:
        return place, ("exists", exists == "exists")
    op = {"==": "="}.get(sign, sign) or word
    is_text = place.startswith("tags") or place in TEXTS
    if op == "in":
        return place, (op, _several(rest, is_text=is_text))
    return place, (op, _value(rest.strip(), is_text=is_text))


def _several(text: str, *, is_text: bool) -> list[Any]:
    whole = _value(text.strip(), is_text=False)
    if isinstance(whole, list):
        return [*whole]  # pyright: ignore[reportUnknownVariableType]
    return [_value(each.strip(), is_text=is_text) for each in text.split(",")]


def _value(text: str, *, is_text: bool) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if not is_text or isinstance(value, str) or value is None else text
