"""What changed from one recorded state to the next, place by place, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import from_json

from polos.core import delta, merge, secret
from polos.core.delta import Fields
from polos.core.model import StateEntry
from polos.core.paths import MISSING, Path, spell, value_at

Change = dict[str, Any]


@dataclass(slots=True)
class Moment:
    """A recorded state, whole, with the entry that recorded it and what it changed."""

    entry: StateEntry
    fields: Fields
    state: dict[str, Any]
    changes: list[Change]


def changes(old: Any, new: Any) -> list[Change]:
    """Return what leads from one JSON value to another: `{op, path, old, new}`.

    `op` is `add`, `remove` or `replace`; `path` is text as `core.paths` reads it. Of an array what
    is common at its start and its end counts as unchanged.
    """
    found: list[Change] = []
    _compare(old, new, (), found)
    return found


class Reel:
    """A recorded state that is brought forward, entry by entry.

    Each costs as much as the fields that it changed; values that did not change are shared between
    the states.
    """

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.state = _decoded(fields, fields)

    def advance(self, entry: StateEntry) -> Moment:
        """Go on to the next entry."""
        fields, state = self.fields, self.state
        after = delta.apply(fields, entry.body)
        touched = {name: text for name, text in after.items() if fields.get(name) != text}
        values = _decoded(after, touched)
        changed: list[Change] = [
            {"op": "remove", "path": spell((name,)), "old": state[name], "new": None}
            for name in fields
            if name not in after
        ]
        for name, value in values.items():
            if name in state:
                _compare(state[name], value, (name,), changed)
            else:
                changed.append({"op": "add", "path": spell((name,)), "old": None, "new": value})
        self.state = {name: values[name] if name in values else state[name] for name in after}
        self.fields = after
        return Moment(entry, after, self.state, changed if entry.version else [])


def moments(fields: Fields, entries: Iterable[StateEntry]) -> Iterator[Moment]:
    """Go through entries behind a record (see `Reel`)."""
    reel = Reel(fields)
    return map(reel.advance, entries)


def last_change(
    fields: Fields, entries: Iterable[StateEntry], path: Path
) -> tuple[StateEntry, Any] | None:
    """Return the last entry behind a record that changed what is at a path, and the value then.

    The value is `paths.MISSING` where the place was removed.
    """
    found: tuple[StateEntry, Any] | None = None
    name = str(path[0])
    text = fields.get(name)
    before = _at(text, path)
    for entry in entries:
        fields = delta.apply(fields, entry.body)
        if fields.get(name) == text:
            continue
        text = fields.get(name)
        value = _at(text, path)
        if not alike(before, value):
            found = entry, value
        before = value
    return found


def _at(text: bytes | None, path: Path) -> Any:
    return MISSING if text is None else value_at(from_json(text), path[1:])


def decoded(fields: Fields) -> dict[str, Any]:
    """Return a record as plain data."""
    return _decoded(fields, fields)


def _decoded(fields: Fields, names: Iterable[str]) -> dict[str, Any]:
    return {name: from_json(fields[name]) for name in names}


def alike(one: Any, other: Any) -> bool:
    """Say whether two JSON values, or `paths.MISSING`, are the same."""
    return type(one) is type(other) and merge.same(one, other)


def _compare(old: Any, new: Any, path: Path, found: list[Change]) -> None:
    if secret.stands_for(old) or secret.stands_for(new):  # whole: its inside is nobody's to see
        if not alike(old, new):
            found.append({"op": "replace", "path": spell(path), "old": old, "new": new})
    elif isinstance(old, dict) and isinstance(new, dict):
        _objects(cast("dict[str, Any]", old), cast("dict[str, Any]", new), path, found)
    elif isinstance(old, list) and isinstance(new, list):
        _arrays(cast("list[Any]", old), cast("list[Any]", new), path, found)
    elif not alike(old, new):
        found.append({"op": "replace", "path": spell(path), "old": old, "new": new})


def _objects(old: dict[str, Any], new: dict[str, Any], path: Path, found: list[Change]) -> None:
    for name, value in old.items():
        if name not in new:
            found.append({"op": "remove", "path": spell((*path, name)), "old": value, "new": None})
    for name, value in new.items():
        if name not in old:
            found.append({"op": "add", "path": spell((*path, name)), "old": None, "new": value})
        else:
            _compare(old[name], value, (*path, name), found)


def _arrays(old: list[Any], new: list[Any], path: Path, found: list[Change]) -> None:
    most = min(len(old), len(new))
    start = 0
    if most and old[:most] == new[:most] and merge.same(old[:most], new[:most]):
        start = most
    while start < most and alike(old[start], new[start]):
        start += 1
    end = 0
    while end < most - start and alike(old[-1 - end], new[-1 - end]):
        end += 1
    gone, come = old[start : len(old) - end], new[start : len(new) - end]
    both = min(len(gone), len(come))
    for place in range(both):
        _compare(gone[place], come[place], (*path, start + place), found)
    for place in range(both, len(come)):
        where = spell((*path, start + place))
        found.append({"op": "add", "path": where, "old": None, "new": come[place]})
    for place in range(both, len(gone)):
        where = spell((*path, start + place))
        found.append({"op": "remove", "path": where, "old": gone[place], "new": None})
