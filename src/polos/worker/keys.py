"""Keys of steps: what a key may be, and whether a recorded row is what the code asks for."""

from __future__ import annotations

import re
from typing import Any

from polos.core import ids
from polos.core.model import Row
from polos.errors import NonDeterminismError, UsageError
from polos.worker.asks import Ask

_NUMBERED = re.compile(r"#\d+$")


def check(key: Any) -> None:
    """Raise UsageError if a key cannot be one."""
    if not isinstance(key, str) or not key:
        raise UsageError(f"step key {key!r}: expected a non-empty string")
    if not ids.is_storable(key):
        raise UsageError(
            f"step key {key!r} holds a NUL or a lone surrogate, which not every database takes; "
            "leave it out"
        )
    if "#" in key and _NUMBERED.search(key):
        raise UsageError(
            f"step key {key!r} ends in '#' and digits, which Polos appends itself to a repeated "
            "key; use another separator"
        )


def compare(execution_id: str, ask: Ask, row: Row, *, repeated: bool) -> None:
    """Raise NonDeterminismError unless a recorded row is what the code asks for (JOURNAL 7)."""
    if row.kind != ask.kind:
        reason = f"was recorded as {row.kind}, the code now asks for {ask.kind}"
        remedy = "give the new step another key"
    elif repeated and row.call is not None and ask.call is not None and row.call != ask.call:
        reason = f"was recorded as a call of {row.call}, the code now calls {ask.call}"
        remedy = (
            "a repeated key must be used in the same order with the same arguments: put the "
            "item into the key"
        )
    else:
        return
    raise NonDeterminismError(
        f"step {ask.key!r} of execution {execution_id} {reason}; {remedy}",
        step_key=ask.key,
        reason=reason,
    )
