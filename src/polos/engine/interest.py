"""Which trees of executions other processes follow: told by bells, and forgotten in time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

BELL = "reads:"
TELL_SECONDS = 2.0
"""So often others are told again: some were not there yet, or missed it."""
HEARD_SECONDS = 10.0
"""So long what another process told holds."""
TOLD_MAX = 1_000

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what a bell can carry


class Interest:
    """What this process told the others that it follows, and what it heard from them."""

    def __init__(self, ring: Callable[[set[str]], None], monotonic: Callable[[], float]) -> None:
        self._ring = ring
        self._monotonic = monotonic
        self._told: dict[str, float] = {}
        self._heard: dict[str, float] = {}

    def tell(self, root_id: str) -> None:
        """This process follows a tree: let those know that run it, unless they just were told."""
        moment = self._monotonic()
        told = self._told.pop(root_id, None)
        if told is not None and moment - told < TELL_SECONDS:
            self._told[root_id] = told
        elif _PLAIN.fullmatch(root_id):
            self._told[root_id] = moment
            self._ring({BELL + root_id})
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]

    def hear(self, bells: Iterable[str]) -> list[str]:
        """Another process rang; returns the trees that nobody else was known to follow."""
        roots = [bell.removeprefix(BELL) for bell in bells if bell.startswith(BELL)]
        new = [root_id for root_id in roots if root_id not in self._heard]
        self._heard.update(dict.fromkeys(roots, self._monotonic()))
        return new

    def expire(self) -> list[str]:
        """Return the trees that nobody was heard to follow any more, and forget them."""
        before = self._monotonic() - HEARD_SECONDS
        gone = [root_id for root_id, at in self._heard.items() if at < before]
        for root_id in gone:
            del self._heard[root_id]
        return gone
