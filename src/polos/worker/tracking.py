"""State of one attempt: the live model, what is recorded, and the way between (JOURNAL 12-19).

`recorded` is what the journal will hold once all that was handed to the committer is durable; it
never goes back. Changes of rows that the code has not been handed yet are kept in `pending`.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from polos.core import delta, merge
from polos.core.delta import Fields
from polos.core.model import Row, StateEntry
from polos.core.sealed import references
from polos.errors import InvalidStateError, StateSchemaError
from polos.workflow.evolving import upgraded
from polos.workflow.state import SIZE_MAX, StateSchema

log = logging.getLogger("polos.state")

Ops = list[Any]
Loaded = tuple[BaseModel, Fields]

MARK_EVERY = 64
"""So many deltas behind a mark the next one is due: then one jump stands for all of them."""
JUMP_SHARE = 2
"""A jump is written if it takes at most so many times the bytes of the deltas it stands for."""
CHAIN_MAX = 512
"""So many entries are read for one record at most; then a snapshot comes, however large it is."""
CHECKED_MAX = 65_536
"""Bytes of changed fields up to which what the code made of them is validated at the next step."""


class Tracker:
    """The state of an execution while an attempt runs it."""

    def __init__(
        self, schema: StateSchema, entries: list[StateEntry], loaded: Loaded | None = None
    ) -> None:
        self.schema = schema
        self._entries = entries
        self._cursor = 0
        current = loaded if loaded is not None and type(loaded[0]) is schema.cls else None
        self._at_cursor = delta.split(entries[0].body) if current is None else current[1]
        self._behind_cursor: Fields = {}
        self.recorded, self._marks = self._wound(entries)
        last = entries[-1].schema_version
        self._renew = schema.is_older(last)
        """What is recorded was migrated: the next entry holds it whole."""
        if current is None:
            self.recorded = schema.upgraded(self.recorded, last)
        self._older = any(map(schema.is_older, {entry.schema_version for entry in entries}))
        self._last = self.recorded
        if len(entries) > 1:
            schema.check(self.recorded)  # what no longer fits must not fail the code midway
        self.model: BaseModel = self._first() if current is None else current[0]
        self._flat = schema.flat
        self._text: bytes | None = self._flat.of(self.recorded)
        self._fields = self.recorded
        """The record that was made of `_text`: as long as the state has that text, it is its."""
        self._size = delta.size(self._fields)
        self._checked = self._fields
        """The last state that was found to fit."""
        self._seen: tuple[Fields, Fields, list[str]] | None = None
        """What `glance` saw last: the record of the state, what was recorded, what differs."""
        self.version = entries[-1].version
        self.pending: dict[int, Ops] = {}
        """Changes by the `seq` of their row, in journal order."""
        self.dirty_since: float | None = None
        self.dirty_key: str | None = None

    def _wound(self, entries: list[StateEntry]) -> tuple[Fields, _Marks]:
        """Return the last record and the marks up to it; what stands before a snapshot is moot."""
        place = len(entries) - 1
        while place and not entries[place].body.startswith("{"):
            place -= 1
        recorded = delta.split(entries[place].body) if place else self._at_cursor
        marks = _Marks(recorded)
        for entry in entries[place + 1 :]:
            recorded = delta.apply(recorded, entry.body)
            marks.count(entry, recorded)
        return recorded, marks

    # -- what the code changes ----------------------------------------------------------------

    def fields(self, *, again: bool = False) -> Fields:
        """Return the live state, field by field, as JSON; `again` if it is hardly another one."""
        schema, flat = self.schema, self._flat
        if again and self._text is not None and flat.quick(self.model) == self._text:
            return self._fields
        text = flat.exact(self.model)
        if text is None or text != self._text:
            self._text = None  # in case of an error
            found = None if text is None else flat.fields(text)
            self._fields = schema.dump_each(self.model) if found is None else found
            self._size = delta.size(self._fields)
            self._text = text
        return self._fields

    def seen(self, key: str, moment: float) -> None:
        """Look at the state when the code asks for a step: check its size, note a change."""
        fields = self._glance()
        if fields is None:
            fields = self.fields()
            if fields != self.recorded:
                if self._size > SIZE_MAX:
                    self.schema.check_size(fields)
                self._check(fields)
        self._checked = fields
        if fields is self.recorded or fields == self.recorded:
            self.dirty_since = None
        elif self.dirty_since is None:
            self.dirty_since = moment
            self.dirty_key = key

    def _glance(self) -> Fields | None:
        """Return the state as JSON, checked; None if that takes a closer look.

        A value of another type than declared is no matter if what it is written as can be read:
        so it is enough to read the fields that changed.
        """
        if self._size > CHECKED_MAX:
            return None
        flat, recorded = self._flat, self.recorded
        text = flat.quick(self.model)
        if text is None:
            return None
        fields = self._fields if text == self._text else flat.fields(text)
        if fields is None or fields is recorded:
            return fields
        size = flat.size(text)
        if size > CHECKED_MAX or [*fields] != [*recorded]:
            return None
        changed = [name for name, value in fields.items() if recorded[name] != value]
        if not self.schema.fits_each(fields, changed):
            return None
        self._text, self._fields, self._size = text, fields, size
        self._seen = fields, recorded, changed
        return fields

    def capture(self, key: str | None, at: int, own: Ops | None = None) -> StateEntry | None:
        """Return the entry that records the state as of now, or None if nothing changed.

        `own` is the change made by the body of the step that is being recorded. A state that is
        too large, or does not fit, is not recorded: the last good one stays (JOURNAL 17).
        """
        fields = self.fields(again=True)  # it was looked at when the step was asked for
        size = self._size
        if fields is not self._checked or own is not None or self.pending:
            try:
                self._check(fields)
                for ops in self.pending.values():
                    fields = self.schema.merged(fields, ops)
            except InvalidStateError:
                return None  # it will not be applied either (see `hand_over`)
            if own is not None:
                fields = self.schema.merged(fields, own)
            size = delta.size(fields)
        self.dirty_since = None
        body = None if fields is self.recorded else self._delta(fields)
        if body is None and not self._renew:
            return None
        if size > SIZE_MAX and not self.schema.fits(fields):
            return None
        if body is None or self._renew or self._marks.is_snapshot_due(len(body), size):
            body = delta.document(fields)
        self._renew = False
        self.recorded = fields
        self.version += 1
        recorded_version = self.schema.recorded_version
        entry = StateEntry(self.version, key, at, body, schema_version=recorded_version)
        if self.schema.has_blobs:  # a delta may hold only a part of a reference
            entry.refs = sorted(references(delta.document(fields)))
        self._marks.place(entry, fields)
        return entry

    def _delta(self, fields: Fields) -> str | None:
        """Return the delta from what is recorded to a record, or None if they are equal."""
        recorded = self.recorded
        if self._seen is None or self._seen[0] is not fields or self._seen[1] is not recorded:
            return delta.diff(recorded, fields)
        changed = self._seen[2]
        return delta.between(recorded, fields, changed) if changed else None

    def check_end(self) -> None:
        """Raise StateTooLargeError or InvalidStateError if an execution cannot end like this."""
        fields = self.fields()
        if fields != self.recorded:
            self.schema.check_size(fields)
            self._check(fields)

    def _check(self, fields: Fields) -> None:
        """Raise InvalidStateError if what the code made of the state does not fit.

        Code changes lists and dicts in place, past the validation of assignments.
        """
        if fields is not self._checked:
            self.schema.check(fields, self.recorded, CHECKED_MAX)
            self._checked = fields

    def prove(self) -> None:
        """Raise StateSchemaError if the state would come back from its record as something else."""
        fields = self.fields()
        lost = self.schema.lost(self.model, fields)
        if lost:
            recorded = fields[lost[0]][:80].decode(errors="replace")
            raise StateSchemaError(
                f"state field {lost[0]!r} of {self.schema.cls.__name__} would come back from its "
                f"record as something else: {recorded} does not tell the types of what it holds; "
                "declare them in the schema"
            )

    def replace(self, value: Any) -> None:
        """Set the whole state, validated."""
        self.model = _replacement(self.schema, value)

    # -- what rows change ---------------------------------------------------------------------

    def take(self, row: Row, *, replayed: bool) -> None:
        """Do what a row that is handed to the code does to the state."""
        if replayed and row.pinned:
            self.pin(row.state_version)
        elif row.change is not None:
            as_of = row.state_version if replayed else None
            self.hand_over(row.seq, json.loads(row.change), as_of)

    def hand_over(self, seq: int, ops: Ops, version: int | None = None) -> None:
        """Apply the change of a row that is handed to the code.

        Two changes that are valid each, but not together (both raise a bounded number), leave the
        first; live and on replay. On replay `version` is that of the state that the row recorded.
        """
        self.pending.pop(seq, None)
        try:
            if version is not None and self._older:
                ops = self._translated(ops, version)
            self.schema.apply_change(self.model, ops)
        except InvalidStateError as error:
            log.warning("a step's change of state was dropped: %s", error)

    def pin(self, version: int) -> None:
        """Set the live state to the recorded one, in place, where it differs (JOURNAL 15)."""
        fields = self._as_of(version)
        if self._older:
            fields = self._readable(self._cursor, fields)
        text = self._flat.of(fields)
        if text is None or self._flat.quick(self.model) != text:
            try:
                self.schema.restore(self.model, fields)
            except InvalidStateError:
                self.schema.restore(self.model, self._readable(self._cursor, self._at_cursor))

    # -- what does not fit the schema any more ------------------------------------------------

    def _first(self) -> BaseModel:
        """Return the state that the code begins with."""
        entry = self._entries[0]
        try:
            return self.schema.load(self.schema.upgraded(self._at_cursor, entry.schema_version))
        except InvalidStateError as error:
            if len(self._entries) == 1:
                raise
            log.warning("a state that was mended since is read as it was mended: %s", error)
            return self.schema.load(self._readable(0, self._at_cursor))

    def _readable(self, place: int, record: Fields) -> Fields:
        """Return an entry's record for this schema.

        One that does not fit it any more is read as the next one that does: it was mended.
        """
        for entry in self._entries[place:-1]:
            if entry is not self._entries[place]:
                record = delta.apply(record, entry.body)
            try:
                found = self.schema.upgraded(record, entry.schema_version)
                self.schema.check(found)
            except InvalidStateError:
                continue
            return found
        return self._last

    def _translated(self, ops: Ops, version: int) -> Ops:
        """Return a change that was recorded by an older schema as a change of this one."""
        after = self._as_of(version)
        entry = self._entries[self._cursor]
        if not self.schema.is_older(entry.schema_version):
            return ops
        before, written_by = after, entry.schema_version or 1
        if entry.version == version:
            before = self._behind_cursor
            written_by = self._entries[max(self._cursor - 1, 0)].schema_version or 1
        values = {name: from_json(text) for name, text in before.items()}
        if written_by != (entry.schema_version or 1):
            # The change was made of what migrations had made of it.
            to = entry.schema_version or 1
            values = upgraded(self.schema.cls, values, written_by, to)
            before = _as_json(values)
        changed = _as_json(merge.merge(ops, values))
        pair = [self.schema.upgraded(each, entry.schema_version) for each in (before, changed)]
        return self.schema.change(*pair)

    def _as_of(self, version: int) -> Fields:
        if version < self._entries[self._cursor].version:
            self._cursor, self._at_cursor = 0, delta.split(self._entries[0].body)
            self._behind_cursor = self._at_cursor
        while (
            self._cursor + 1 < len(self._entries)
            and self._entries[self._cursor + 1].version <= version
        ):
            self._cursor += 1
            self._behind_cursor = self._at_cursor
            self._at_cursor = delta.apply(self._at_cursor, self._entries[self._cursor].body)
        return self._at_cursor


def _replacement(schema: StateSchema, value: Any) -> BaseModel:
    """Return the state that code sets as a whole; None is a mistake, not a wish for defaults."""
    if value is None:
        name = schema.cls.__name__
        raise InvalidStateError(
            f"ctx.state = None: expected an instance of {name}, or a dict of its fields; {name}() "
            "has the defaults"
        )
    return schema.initial(value)


def _as_json(values: dict[str, Any]) -> Fields:
    return {name: to_json(each, inf_nan_mode="constants") for name, each in values.items()}


class _Marks:
    """Where the recorded entries of an execution have their marks (see `core.delta`)."""

    __slots__ = ("_bytes", "_chain", "_deltas", "_fields", "_since_snapshot")

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        """The record of the last mark."""
        self._deltas = 0
        self._bytes = 0
        """Entries behind the last mark, and their bytes."""
        self._chain = 0
        self._since_snapshot = 0

    def is_snapshot_due(self, more: int, size: int) -> bool:
        """Say whether the next entry, with a delta of `more` bytes, is better a snapshot."""
        return self._since_snapshot + more > size or self._chain >= CHAIN_MAX

    def place(self, entry: StateEntry, fields: Fields) -> None:
        """Give a new entry its jump if one is due, and count it."""
        if (self._deltas + 1) % MARK_EVERY == 0 and not entry.body.startswith("{"):
            jump = delta.diff(self._fields, fields) or "[]"
            if len(jump) <= JUMP_SHARE * (self._bytes + len(entry.body)):
                entry.jump = jump
        self.count(entry, fields)

    def count(self, entry: StateEntry, fields: Fields) -> None:
        """Count an entry that leads to `fields`."""
        if entry.body.startswith("{"):
            self._chain = self._since_snapshot = 0
        elif entry.jump is None:
            self._chain += 1
            self._deltas += 1
            self._bytes += len(entry.body)
            self._since_snapshot += len(entry.body)
            return
        else:
            self._chain -= self._deltas - 1
            self._since_snapshot += len(entry.body) + len(entry.jump)
        self._fields = fields
        self._deltas = self._bytes = 0


class StepScope:
    """The view that one attempt of a step's body has of the state: a private copy."""

    __slots__ = ("_before", "_copy", "_tracker", "attempts", "key", "owner")

    def __init__(self, owner: Any, key: str, attempts: int, tracker: Tracker | None) -> None:
        self.owner = owner
        self.key = key
        self.attempts = attempts
        self._tracker = tracker
        self._copy: BaseModel | None = None
        self._before: Fields = {}

    def state(self) -> BaseModel | None:
        """Return the private copy, made at the first access."""
        if self._tracker is None:
            return None
        if self._copy is None:
            self._before = self._tracker.fields()
            self._copy = self._tracker.schema.copy(self._tracker.model)
        return self._copy

    def replace(self, value: Any) -> None:
        """Set the whole private copy, validated."""
        if self.state() is not None and self._tracker is not None:
            self._copy = _replacement(self._tracker.schema, value)

    def forget(self) -> None:
        """Drop what was changed so far."""
        self._copy = None

    def change(self) -> Ops | None:
        """Return what the body changed, or None; StateTooLargeError, InvalidStateError."""
        if self._copy is None or self._tracker is None:
            return None
        schema = self._tracker.schema
        after = schema.dump(self._copy)
        if after == self._before:
            return None
        schema.check_size(after)
        schema.check(after, self._before)
        return schema.change(self._before, after)
