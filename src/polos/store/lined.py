"""A store whose records come out as code needs them: decrypted, with large values in their place.

Commands go in as they are: the store gives them to its `Lining` itself, once their batch is formed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from polos.core import secret
from polos.core.keyed import Keyed
from polos.core.model import (
    Change,
    Event,
    Execution,
    InboxItem,
    Kind,
    Row,
    Start,
    StateEntry,
    Status,
    Work,
)
from polos.core.rewind import Rewound
from polos.core.sealed import demand_open
from polos.core.suspension import Accepted, Answer, Suspension
from polos.core.triggers import Firing, Triggered
from polos.core.where import Query
from polos.errors import BlobNotFoundError, EncryptionKeyError, StoreError
from polos.store.commands import settle
from polos.store.lining import Lining
from polos.store.protocol import Store

log = logging.getLogger("polos.store")

PASSED = frozenset(
    {
        *("read_only", "liveness", "survey_seconds", "death_seconds", "poll_seconds", "on_bell"),
        *("lining", "open", "close", "submit", "commit_now", "foreign_commits", "claimable"),
        *("cancel", "force_cancel", "retry", "register_worker", "stop_worker", "stop_worker_now"),
        *("sort_out", "survey", "live_workers", "worker_stopped", "next_wake", "to_cancel"),
        *("workers", "finished_workflows", "due", "weigh", "prune", "stats", "vacuum"),
        *("blob_begin", "blob_put", "blob_finish", "blob_size", "blob_chunk", "blob_collect"),
        *("derive", "seq_at", "last_seqs", "topics", "watched", "register_triggers"),
        *("prune_events", "expire", "sees_others", "foreign_count", "on_published"),
        *("async_transactions", "transact", "state_version_at", "state_origin", "tally"),
        *("workflow_ids", "declare", "declared", "heads", "current_heads"),
        *("amend", "is_preceded", "keyed_state", "write_keyed_state", "state_keys"),
        *("ring", "watermark", "floor", "count_entries", "count_values"),
        *("dump_tree", "restore_tree", "sealed_page", "rewrite"),
    }
)
"""What of a store goes through as it is: it neither takes nor returns values of users in
clear, or looks into them itself, inside of its transaction."""
_SETTABLE = frozenset({"on_bell", "on_published", "gate"})
UNREADABLE = (EncryptionKeyError, BlobNotFoundError)


class LinedStore:
    """The store as the engine sees it: `polos.store.protocol.Store`, except for a new verb.

    With a codec a verb that is neither here nor in `PASSED` is refused: it might write, or return,
    what has to be encrypted.
    """

    def __init__(self, inner: Store, lining: Lining) -> None:
        self.inner = inner
        self.lining = inner.lining = lining

    def __getattr__(self, name: str) -> Any:
        if self.lining.codec is not None and name not in PASSED | _SETTABLE:
            raise StoreError(f"the store's {name!r} cannot be used with a codec yet")
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SETTABLE:
            setattr(self.inner, name, value)
        else:
            super().__setattr__(name, value)

    # -- verbs --------------------------------------------------------------------------------

    async def claim(
        self,
        worker_id: str,
        keys: Sequence[tuple[str, str, int]],
        parked: dict[str, tuple[int, int]],
        now: int,
        limit: int | None = None,
    ) -> list[Work]:
        """Own those that are still free; one that cannot be read is parked with the reason."""
        works: list[Work] = []
        for work in await self.inner.claim(worker_id, keys, parked, now, limit):
            try:
                works.append(await self._work(work))
            except UNREADABLE as error:
                record = work.execution
                log.error("execution %s cannot be run here: %s", record.id, error)
                reason = f"it cannot be read: {error}; then polos retry {record.id}"
                await self.inner.block(record.id, record.attempt, reason)
        return works

    async def block(self, execution_id: str, attempt: int, reason: str) -> bool:
        """Park an execution as waiting, with a reason."""
        return await self.inner.block(execution_id, attempt, self.lining.seal(reason))

    async def resume(self, answer: Answer) -> Accepted:
        """Answer a suspension; the store reads its form, and keeps the answer encrypted."""
        return await self.inner.resume(answer)

    async def enter_key(
        self, execution_id: str, attempt: int, keyed: Keyed
    ) -> list[StateEntry] | None:
        """Let a claimed execution take its place; returns the states that it begins with."""
        found = await self.inner.enter_key(execution_id, attempt, keyed)
        return None if found is None else await self._entries(found)

    async def fire(self, firing: Firing) -> bool:
        """Start executions for events, exactly once."""
        starts = [self.lining.start(start) for start in firing.starts]
        fired = await self.inner.fire(replace(firing, starts=starts))
        if fired:
            for start, written in zip(firing.starts, starts, strict=True):
                settle(start, written)
        return fired

    async def events(self, topic: str, after: int, limit: int) -> list[Event]:
        """Read the events of a topic behind one, in order."""
        return await self._events(await self.inner.events(topic, after, limit))

    async def triggered(self, workflow_id: str, topic: str, limit: int) -> Triggered | None:
        """Read the events that are to start executions of a workflow."""
        found = await self.inner.triggered(workflow_id, topic, limit)
        if found is not None:
            found.events = await self._events(found.events)
        return found

    async def suspensions(self, filters: dict[str, str], limit: int, now: int) -> list[Suspension]:
        """List open suspensions; without its key what one says stays encrypted."""
        found = await self.inner.suspensions(filters, limit, now)
        for each in found:
            if each.wait.body is not None:
                with suppress(EncryptionKeyError):
                    each.wait.body = self.lining.open(each.wait.body)
        return found

    async def start_with(
        self, start: Start, journal: Sequence[Row], states: Sequence[StateEntry]
    ) -> None:
        """Create an execution that goes on from a journal; `EncryptionKeyError` without its key."""
        demand_open(start.payload, start.payload_type)
        demand_open(*[text for row in journal for text in (row.body, row.change, row.info)])
        change = Change(start.root_id, start.id, 0)
        change.rows, change.states = list(journal), states
        lined, begin = self.lining.change(change), self.lining.start(start)
        begin = replace(
            begin,
            contents=[*begin.contents, *lined.contents],
            refs=sorted({*begin.refs, *lined.refs}),
        )
        await self.inner.start_with(begin, lined.rows, lined.states)

    async def reset(self, execution_id: str, step_key: str, now: int, *, dry_run: bool) -> Rewound:
        """Let an execution go on behind one of its steps; without its key rows stay encrypted."""
        done = await self.inner.reset(execution_id, step_key, now, dry_run=dry_run)
        await self._open_rows([*done.cut.kept, *done.cut.gone])
        return done

    # -- reads --------------------------------------------------------------------------------

    async def inboxes(self, keys: Sequence[tuple[str, str]]) -> list[InboxItem]:
        """Read inbox items; one that cannot be read stays where it is."""
        found: list[InboxItem] = []
        for item in await self.inner.inboxes(keys):
            try:
                found.append(await self._item(item))
            except UNREADABLE as error:
                log.error("an item for execution %s cannot be read: %s", item.execution_id, error)
        return found

    async def execution(self, execution_id: str) -> Execution | None:
        """Read one execution; without its key its values stay encrypted."""
        found = await self.inner.execution(execution_id)
        return None if found is None else await self._shown(found)

    async def steps(self, root_id: str, execution_id: str) -> list[Row]:
        """Read a journal by seq; without its key what it has stays encrypted."""
        rows = await self.inner.steps(root_id, execution_id)
        await self._open_rows(rows)
        return rows

    async def cut_steps(self, root_id: str, execution_id: str) -> list[tuple[int, int, Row]]:
        """Read the rows that resets cut off; without its key what they have stays encrypted."""
        found = await self.inner.cut_steps(root_id, execution_id)
        await self._open_rows([row for _, _, row in found])
        return found

    async def states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read all state entries by version; `EncryptionKeyError` without their key."""
        return await self._entries(await self.inner.states(root_id, execution_id))

    async def latest_states(self, root_id: str, execution_id: str) -> list[StateEntry]:
        """Read the last snapshot and the deltas since; without its key encrypted, and only it."""
        found = await self.inner.latest_states(root_id, execution_id)
        try:
            return await self._entries(found)
        except EncryptionKeyError:
            return found[-1:]

    async def states_up_to(self, root_id: str, execution_id: str, version: int) -> list[StateEntry]:
        """Read what the state of a version is made of; `EncryptionKeyError` without its key."""
        return await self._entries(await self.inner.states_up_to(root_id, execution_id, version))

    async def states_between(
        self, root_id: str, execution_id: str, after: int, until: int
    ) -> list[StateEntry]:
        """Read the entries behind one version, up to and including another."""
        found = await self.inner.states_between(root_id, execution_id, after, until)
        return await self._entries(found)

    async def latest_states_of(
        self, keys: Sequence[tuple[str, str]]
    ) -> dict[str, list[StateEntry]]:
        """Read the latest states of executions; without its key one is encrypted, and only it."""
        found = await self.inner.latest_states_of(keys)
        for id_, entries in found.items():
            try:
                found[id_] = await self._entries(entries)
            except EncryptionKeyError:
                found[id_] = entries[-1:]
        return found

    async def find(self, query: Query, limit: int) -> list[Execution]:
        """List the executions that a query finds, newest first."""
        return [await self._shown(each) for each in await self.inner.find(query, limit)]

    async def finished(self, ids: Sequence[str]) -> list[Execution]:
        """Read those of the named executions that have ended."""
        return [await self._shown(each) for each in await self.inner.finished(ids)]

    async def listing(self, filters: dict[str, Any], limit: int) -> list[Execution]:
        """List executions, newest first."""
        return [await self._shown(each) for each in await self.inner.listing(filters, limit)]

    # -- blobs --------------------------------------------------------------------------------

    def read_blob(self, hash: str) -> AsyncIterator[bytes]:
        """Yield a blob chunk by chunk; `BlobNotFoundError` if it is not here."""
        return self.lining.stream(hash, self.inner)

    # -- records ------------------------------------------------------------------------------

    async def _work(self, work: Work) -> Work:
        work.execution = await self._execution(work.execution)
        for row in work.rows:
            if _is_remarkable(row):
                await self._row(row)
        work.states = await self._entries(work.states)
        work.inbox = [await self._item(item) for item in work.inbox]
        return work

    async def _shown(self, record: Execution) -> Execution:
        try:
            return await self._execution(record)
        except EncryptionKeyError:
            return record

    async def _execution(self, record: Execution) -> Execution:
        values = (record.payload, record.payload_type, record.result, record.result_type)
        if record.error is None and record.blocked_reason is None and not any(map(_marked, values)):
            return record
        open_text = self.lining.open
        payload, result = await self._load(record.payload), await self._load(record.result)
        error, reason = record.error, record.blocked_reason
        return replace(
            record,
            payload=payload,
            result=result,
            payload_type=record.payload_type and open_text(record.payload_type),
            result_type=record.result_type and open_text(record.result_type),
            error=None if error is None else self.lining.open_failure(error),
            blocked_reason=reason and open_text(reason),
        )

    async def _row(self, row: Row) -> Row:
        if row.body is not None and row.kind == Kind.SUSPEND and row.ok:
            row.body = await self.lining.load_pieces(row.body, self.inner)
        elif row.body is not None:
            failed = row.ok is False
            row.body = self.lining.open_failure(row.body) if failed else await self._load(row.body)
        row.change = await self._load(row.change)
        row.type = row.type and self.lining.open(row.type)
        row.info = row.info and self.lining.open(row.info)
        return row

    async def _open_rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            with suppress(EncryptionKeyError):
                await self._row(row)

    async def _entries(self, entries: Sequence[StateEntry]) -> list[StateEntry]:
        for entry in entries:
            # Most are deltas as they were written: neither encrypted nor apart.
            if entry.jump is not None or entry.body[:1] != "[" or _marked(entry.body):
                await self.lining.load_entry(entry, self.inner)
        return list(entries)

    async def _item(self, item: InboxItem) -> InboxItem:
        if item.body is not None and item.status is not Status.COMPLETED:
            item.body = self.lining.open_failure(item.body)
        elif item.kind == "child":
            item.body = await self._load(item.body)
        elif item.body is not None:
            item.body = await self.lining.load_pieces(item.body, self.inner)
        item.type = item.type and self.lining.open(item.type)
        return item

    async def _load(self, text: str | None) -> str | None:
        if text is None or not _marked(text):
            return text
        return await self.lining.load(text, self.inner)

    async def _events(self, events: Sequence[Event]) -> list[Event]:
        for event in events:
            event.data = await self.lining.load_pieces(event.data, self.inner)
            if secret.holds(event.data):  # events are for those who look on
                event.data = json.dumps(secret.mask(json.loads(event.data)))
        return list(events)


def _is_remarkable(row: Row) -> bool:
    # Most rows are plain results of steps, as they were written: not worth a coroutine each.
    return not (
        row.ok is True
        and row.type is None
        and row.change is None
        and row.info is None
        and row.kind != Kind.SUSPEND
        and not _marked(row.body)
    )


def _marked(text: str | None) -> bool:
    # Most texts are neither encrypted nor large: told by their second character.
    return text is not None and text[1:2] == " "
