"""Past state: what was recorded with each step, what changed, and who set it last."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from polos.client.finding import number
from polos.client.node import Node
from polos.client.views import EPOCH, moment
from polos.core import delta, history, paths, secret
from polos.core.history import Moment
from polos.core.model import HIDDEN_KINDS, Execution, StateEntry
from polos.errors import StepNotFoundError, UsageError

WINDOW = 512
"""Entries that are read at once."""


def micros(name: str, given: Any) -> int:
    """Return a moment, an aware `datetime` or ISO 8601 text with a UTC offset, in microseconds."""
    found = given
    if isinstance(given, str):
        try:
            found = datetime.fromisoformat(given)
        except ValueError:
            found = None
    if not isinstance(found, datetime) or found.utcoffset() is None:
        raise UsageError(
            f"{name}={given!r}: expected an aware datetime, or ISO 8601 text with its offset from "
            "UTC such as 2026-01-31T12:00:00+00:00"
        )
    since = found.astimezone(UTC) - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def count(name: str, given: int | None, least: int) -> int | None:
    """Return an optional number, checked (see `number`)."""
    return None if given is None else number(name, given, least)


class Past:
    """The part of a client that reads past state."""

    async def node(self) -> Node:
        """Return what runs behind this client."""
        raise NotImplementedError

    async def state_history(
        self,
        execution_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return every recorded state of an execution, oldest first.

        Each is a dict: `seq` (0 is the start, then one for each row of the journal that changed
        the state), `step_key` (None at the start and for the ending), `at`, `state` (whole, as of
        then) and `changes` (`op`, `path`, `old`, `new`); one that `patch_state` made also has
        `who` and `why`. The list is empty without a state schema.
        `after` and `before` are a `seq`; `limit` gives the oldest behind `after`, or the latest
        ones before `before`. Values that did not change are shared between the states.
        """
        node = await self.node()
        record = await node.engine.require(execution_id)
        most = count("limit", limit, 1)
        start, end = count("after", after, -1), count("before", before, 0)
        first = 0 if start is None else start + 1
        last = await node.engine.states.last_version(record)
        stop = last + 1 if end is None else min(end, last + 1)
        if most is not None and start is None and end is not None:
            first = max(first, stop - most)
        elif most is not None:
            stop = min(stop, first + most)
        found = _moments(node, record, first, stop)
        return [shown(each) async for each in found]

    async def state_at(
        self,
        execution_id: str,
        *,
        step_key: str | None = None,
        seq: int | None = None,
        at: datetime | str | None = None,
    ) -> dict[str, Any] | None:
        """Return the state as it was recorded with a step, as entry `seq`, or at a moment.

        At most one is given; without any it is the latest. Of a step that changed nothing it is
        the state as of that step. None without a state schema. `StepNotFoundError` if there is no
        such step; UsageError for a `seq`, or a moment, that has no state.
        """
        if sum(each is not None for each in (step_key, seq, at)) > 1:
            raise UsageError("state_at takes one of step_key=, seq= and at=")
        node = await self.node()
        record = await node.engine.require(execution_id)
        wanted = None if seq is None else count("seq", seq, 0)
        if wanted is not None:  # the usual case asks the store no more than it must
            entries = await node.engine.states.up_to(record, wanted)
            if entries and entries[-1].version == wanted:
                return secret.mask(history.decoded(fields_of(entries)))
        last = await node.engine.states.last_version(record)
        if last < 0:
            return None
        version = last if wanted is None else wanted
        if step_key is not None:
            version = await _version_of_step(node, record, step_key)
        elif at is not None:
            known = await node.engine.states.version_at(record, micros("at", at))
            if known is None:
                raise UsageError(
                    f"at={at!r}: execution {execution_id!r} was started later, at "
                    f"{moment(record.created_at)}"
                )
            version = known
        entries = await node.engine.states.up_to(record, version)
        if not entries or entries[-1].version != version:
            raise UsageError(
                f"seq={version if seq is None else seq}: execution {execution_id!r} has states up "
                f"to {last}; see state_history"
            )
        return secret.mask(history.decoded(fields_of(entries)))

    async def blame_state(self, execution_id: str, path: str) -> dict[str, Any]:
        """Say what set a place of the state last, such as `total` or `legs[0].to`.

        A dict: `path`, `value` (None if the place was removed), `seq`, `step_key` (None at the
        start and for the ending), `at`, `attempt`, `worker_id` and `code_version`; the last three
        are None where they are not known, as for `patch_state`, which has `who` and `why` too.
        UsageError if nothing ever was at the path.
        """
        parsed = paths.parse(path)
        node = await self.node()
        record = await node.engine.require(execution_id)
        stop = await node.engine.states.last_version(record) + 1
        while stop > 0:
            start = max(0, stop - WINDOW)
            before = await _base(node, record, start)
            entries = await node.engine.states.between(record, start - 1, stop - 1)
            found = history.last_change(before, entries, parsed)
            if found is not None:
                return await _blamed(node, record, path, *found)
            stop = start
        raise UsageError(
            f"path {path!r}: nothing was ever there in the state of execution {execution_id!r}"
        )


async def _version_of_step(node: Node, record: Execution, step_key: str) -> int:
    for row in await node.engine.steps(record):
        if row.key == step_key and row.kind not in HIDDEN_KINDS:
            return row.state_version
    raise StepNotFoundError(record.id, step_key)


async def _base(node: Node, record: Execution, version: int) -> delta.Fields:
    """Return the record that a version changed."""
    if version < 1:
        return {}
    return fields_of(await node.engine.states.up_to(record, version - 1))


def fields_of(entries: list[StateEntry]) -> delta.Fields:
    """Return the record that a snapshot, jumps and deltas make."""
    return delta.replay(entry.jump or entry.body for entry in entries)


async def _moments(node: Node, record: Execution, first: int, stop: int) -> AsyncIterator[Moment]:
    fields = await _base(node, record, first)
    while first < stop:
        until = min(stop, first + WINDOW)
        entries = await node.engine.states.between(record, first - 1, until - 1)
        for each in history.moments(fields, entries):
            fields = each.fields
            yield each
        first = until


def shown(each: Moment) -> dict[str, Any]:
    """Return a recorded state as `state_history` shows it."""
    return {
        "seq": each.entry.version,
        "step_key": each.entry.step_key,
        "at": moment(each.entry.at),
        "state": secret.mask(each.state),
        "changes": secret.mask(each.changes),
        **_by_hand(each.entry),
    }


def masked(value: Any, path: paths.Path) -> Any:
    """Return what is at a path as it is shown: None for nothing, secrets masked."""
    if value is paths.MISSING:
        return None
    return secret.MASK if secret.MARK in path else secret.mask(value)


def _by_hand(entry: StateEntry) -> dict[str, Any]:
    """Return who changed the state from outside, and why; nothing for what the code changed."""
    origin: dict[str, Any] = json.loads(entry.origin or "{}")
    return origin if "who" in origin else {}


async def _blamed(
    node: Node, record: Execution, path: str, entry: StateEntry, value: Any
) -> dict[str, Any]:
    origin: Mapping[str, Any] = {}
    by_hand = _by_hand(entry)
    if entry.attempt is not None:
        origin = json.loads(await node.engine.states.origin(record, entry.version) or "{}")
    return {
        "path": path,
        "value": masked(value, paths.parse(path)),
        "seq": entry.version,
        "step_key": entry.step_key,
        "at": moment(entry.at),
        "attempt": entry.attempt,
        "worker_id": origin.get("worker_id"),
        "code_version": None if by_hand else origin.get("code_version", record.code_version),
        **by_hand,
    }
