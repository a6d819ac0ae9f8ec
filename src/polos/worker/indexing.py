"""The declared fields of a state, as the index has them while an attempt runs."""

from __future__ import annotations

from collections.abc import Sequence

from polos.core import where
from polos.core.delta import Fields
from polos.core.indexed import IndexEntry


class Index:
    """Tells what of the index changes with a state; at first all of it."""

    __slots__ = ("_places", "_texts", "_workflow_id")

    def __init__(self, workflow_id: str, places: Sequence[str]) -> None:
        self._workflow_id = workflow_id
        self._places = {place: str(where.parsed(place)[1]) for place in places}
        self._texts: dict[str, bytes | None] | None = None

    def changed(self, fields: Fields) -> list[IndexEntry]:
        """Return the entries of the fields that are not as they were at the last call."""
        known, self._texts = self._texts, {n: fields.get(n) for n in self._places.values()}
        changed = [
            place
            for place, name in self._places.items()
            if known is None or known[name] != self._texts[name]
        ]
        return where.entries(self._workflow_id, changed, fields) if changed else []
