"""What a hook is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class HookContext:
    """The second argument of an `on_start` or `on_end` function."""

    workflow_id: str
    session_id: str | None = None
    user_id: str | None = None
    current_payload: Any = None
    """The payload as the workflow function gets it."""
    current_output: Any = None
    """The result, for `on_end`; None before."""
