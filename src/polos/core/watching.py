"""Where recorded states stand, and the cursor of those who watch many of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from polos.errors import UsageError

POLL_SECONDS = 0.025
"""Between two looks for what other processes committed, while somebody waits."""
IDLE_SHARE = 5
"""The pause behind a look is so many times as long as the look, at least."""
OVERLAP_US = 120_000_000
"""So late, by its id, an execution may appear in the store and is still seen as new."""


@dataclass(slots=True, frozen=True)
class Head:
    """Where the recorded state of an execution stands."""

    id: str
    root_id: str
    workflow_id: str
    version: int
    """The latest; -1 if there is none."""
    completed_at: int | None
    created_at: int

    @property
    def ended(self) -> bool:
        """Say whether the execution has ended."""
        return self.completed_at is not None


@dataclass(slots=True, frozen=True)
class Cursor:
    """What was seen of many executions."""

    at: int
    """When it was so; what was created so much earlier that nothing is late has ended, or is in
    `seen`."""
    seen: Mapping[str, int]
    """The last version that was seen, by execution."""

    def dump(self) -> str:
        """Return the cursor as text."""
        return json.dumps({"at": self.at, "seen": self.seen}, separators=(",", ":"))


def load_cursor(given: Any) -> Cursor | None:
    """Read the text of a cursor; UsageError for anything else but None."""
    if given is None:
        return None
    found: Any = None
    if isinstance(given, str):
        try:
            found = json.loads(given)
        except ValueError:
            found = None
    if isinstance(found, dict):
        parts = cast("dict[str, Any]", found)
        at, seen = parts.get("at"), parts.get("seen")
        if type(at) is int and isinstance(seen, dict):
            versions = cast("dict[str, Any]", seen)
            if all(type(each) is int and each >= -1 for each in versions.values()):
                return Cursor(at, versions)
    raise UsageError(
        f"after={str(given)[:60]!r}: expected the `cursor` of an earlier watch, as text"
    )
