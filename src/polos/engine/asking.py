"""Finding and counting executions by conditions: by the index where it answers, else by reading.

A place of the state is indexed for the executions of the workflows that declared it, from the time
of the declaration on. What no index answers is read: executions that have not ended, and the newest
`SCAN_MAX` of the others.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import from_json

from polos.core import delta, ids, paths
from polos.core import where as conditions
from polos.core.model import Execution
from polos.core.sealed import is_sealed
from polos.core.where import MISSING, TEXTS, Condition, Query, Tally
from polos.engine import ways
from polos.errors import UsageError
from polos.store.finding import FILTERS
from polos.store.protocol import Store

log = logging.getLogger("polos.client")

SCAN_MAX = 10_000
"""So many of the newest executions are read for what no index answers."""
PAGE = 500


@dataclass(slots=True)
class Note:
    """What there is to say about how something was found."""

    places: set[str] = field(default_factory=set[str])
    """Places that no index has."""
    cut: bool = False
    """There were more executions than were read."""

    @property
    def text(self) -> str | None:
        """The note for people, or None if there is nothing to say."""
        if not self.places:
            return None
        names = ", ".join(sorted(self.places))
        left = "older ones that have ended were left out" if self.cut else "it read all there are"
        return (
            f"{names}: no index answers this, so executions that have not ended and the newest "
            f"{SCAN_MAX:,} were read; {left}. Declare fields of the state with "
            "@workflow(index_state=[...])"
        )


@dataclass(slots=True)
class Part:
    """Executions that are found in one way: by a query, and then by reading what it finds."""

    query: Query
    rest: tuple[Condition, ...]
    """Conditions that are left for reading."""
    covered: frozenset[str]
    """Places that the index has for all executions of this part."""


class Asking:
    """Finds and counts executions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def declare(self, places: Sequence[tuple[str, str]], now: int) -> None:
        """Note the (workflow, place of its state) that are indexed from now on."""
        if places:
            known = {(workflow_id, path) for workflow_id, path, _ in await self._store.declared()}
            new = [each for each in places if each not in known]
            if new:
                await self._store.declare(new, ids.first_id(now))

    async def declared(self, workflow_id: str) -> list[str]:
        """Return the places of a workflow's state that are indexed."""
        return [path for known, path, _ in await self._store.declared() if known == workflow_id]

    async def find(
        self, filters: Mapping[str, Any], where: Sequence[Condition], limit: int
    ) -> tuple[list[Execution], str | None]:
        """List executions that fit all conditions, newest first; and what there is to say."""
        await self._demand_declared(filters, [each.name for each in where if not each.is_column])
        note = Note()
        found: list[Execution] = []
        for part in await self._parts(filters, where, ()):
            found += await self._of(part, limit, note)
        found.sort(key=lambda each: each.id, reverse=True)
        return found[:limit], self._said(note)

    async def tally(
        self,
        filters: Mapping[str, Any],
        where: Sequence[Condition],
        group: str | None,
        total: str | None,
    ) -> tuple[list[Tally], str | None]:
        """Count executions that fit, by a place, and add one up; and what there is to say."""
        note = Note()
        sums: dict[str, Tally] = {}
        needed = [name for name in (group, total) if name is not None and name not in TEXTS]
        places = [each.name for each in where if not each.is_column]
        await self._demand_declared(filters, [*places, *needed])
        for part in await self._parts(filters, where, needed):
            for each in await self._tally(part, group, total, note):
                key = conditions.rank(each.group)
                known = sums.get(key, Tally(each.group, 0))
                sums[key] = Tally(
                    known.group, known.count + each.count, _plus(known.total, each.total)
                )
        ordered = sorted(sums.values(), key=lambda t: (-t.count, conditions.rank(t.group)))
        return ordered, self._said(note)

    async def _demand_declared(self, filters: Mapping[str, Any], names: Sequence[str]) -> None:
        """With a codec only what is declared is looked for: nothing else is there to be read."""
        wanted = {name for name in names if _source(name) != "tags"}
        if not wanted or self._store.lining.codec is None:
            return
        workflow_id = filters.get("workflow_id")
        known = {p for w, p, _ in await self._store.declared() if workflow_id in (None, w)}
        if wanted - known:
            name = min(wanted - known)
            raise UsageError(
                f"{name}: values are encrypted at rest, so executions are found by columns, tags "
                "and declared fields of the state only; declare it with "
                '@workflow(index_state=["…"]), which keeps its value in clear, or give the '
                "execution a tag"
            )

    def _said(self, note: Note) -> str | None:
        if note.cut:
            log.warning("%s", note.text)
        return note.text

    # -- which way ----------------------------------------------------------------------------

    async def _parts(
        self, filters: Mapping[str, Any], where: Sequence[Condition], needed: Sequence[str]
    ) -> list[Part]:
        """Split what is asked into parts, by workflow and by what is indexed there."""
        filters, columns = _filtered(filters, [each for each in where if each.is_column])
        since, until = conditions.ids_of(columns)
        by_index = [each for each in where if not each.is_column and _may_be_indexed(each)]
        other = tuple(each for each in where if not each.is_column and each not in by_index)
        names = {each.name for each in by_index if each.source == "state"}
        names |= {name for name in needed if _source(name) == "state"}
        tags = tuple(each for each in by_index if each.source == "tags")
        if not names and not tags:
            return [Part(Query(filters, columns, since=since, until=until), other, frozenset())]
        firsts: dict[str, dict[str, str]] = {}
        for workflow_id, path, first in await self._store.declared():
            if path in names:
                firsts.setdefault(workflow_id, {})[path] = first
        if not firsts and (other or not tags or not any(map(conditions.has_spans, tags))):
            rest = tuple(each for each in by_index if each.source == "state")
            query = Query(filters, columns, tags, since=since, until=until)
            return [Part(query, rest + other, frozenset())]
        given = filters.get("workflow_id")
        found: list[Part] = []
        for each in [given] if given else await self._store.workflow_ids():
            known = firsts.get(each, {})
            found += _of_workflow({**filters, "workflow_id": each}, columns, by_index, other, known)
        return found

    # -- finding ------------------------------------------------------------------------------

    async def _of(self, part: Part, limit: int, note: Note) -> list[Execution]:
        if part.rest:
            found: list[Execution] = []
            async for each, _ in self._scan(part, note):
                found.append(each)
                if len(found) == limit:
                    break
            return found
        return await ways.find(self._store, part.query, limit)

    async def _scan(
        self, part: Part, note: Note, *, with_state: bool = False, unknown: Set[str] = frozenset()
    ) -> AsyncIterator[tuple[Execution, delta.Fields | None]]:
        """Read what a part's query finds, and give what fits the rest."""
        query, read = part.query, 0
        with_state = with_state or any(each.source == "state" for each in part.rest)
        while page := await ways.find(self._store, query, PAGE):
            note.places |= unknown | {each.name for each in part.rest}
            if not query.unfinished and read + len(page) > SCAN_MAX:
                page = page[: SCAN_MAX - read]
            states = await self._states(page) if with_state else {}
            for each in page:
                state = states.get(each.id)
                if all(
                    conditions.fits(one, conditions.found_in(one, each, state)) for one in part.rest
                ):
                    yield each, state
            read += len(page)
            if page:
                query = replace(query, filters={**query.filters, "before": page[-1].id})
            if read >= SCAN_MAX and not query.unfinished:
                note.cut = note.cut or bool(await self._store.find(query, 1))
                query = replace(query, unfinished=True)

    async def _states(self, page: Sequence[Execution]) -> dict[str, delta.Fields]:
        found = await self._store.latest_states_of([(each.root_id, each.id) for each in page])
        return {
            id_: delta.replay(entry.jump or entry.body for entry in entries)
            for id_, entries in found.items()
            if entries and not is_sealed(entries[0].jump or entries[0].body)
        }

    # -- counting -----------------------------------------------------------------------------

    async def _tally(
        self, part: Part, group: str | None, total: str | None, note: Note
    ) -> Iterable[Tally]:
        places = [name for name in (group, total) if name is not None and name not in TEXTS]
        unknown = {
            n for n in places if n not in part.covered and (n == "tags" or _source(n) != "tags")
        }
        if not part.rest and not unknown:
            return await ways.tally(self._store, part.query, group, total)
        sums: dict[str, Tally] = {}
        with_state = any(_source(name) == "state" for name in places)
        async for each, state in self._scan(part, note, with_state=with_state, unknown=unknown):
            value = None if group is None else _value(group, each, state)
            if value is MISSING or isinstance(value, dict | list):
                continue
            number = None if total is None else _value(total, each, state)
            if type(number) not in (int, float):
                number = None
            key = conditions.rank(value)
            known = sums.get(key, Tally(value, 0))
            sums[key] = Tally(value, known.count + 1, _plus(known.total, number))
        return sums.values()


def _source(place: str) -> str | int:
    return paths.parse(place)[0]


def _value(place: str, record: Execution, state: delta.Fields | None) -> Any:
    source, *path = paths.parse(place)
    if place in TEXTS:
        found = getattr(record, place)
        return None if found is None else str(found)
    if source == "state":
        return MISSING if state is None else conditions.at(state, tuple(path))
    text = {"payload": record.payload, "result": record.result, "tags": record.tags}[str(source)]
    return MISSING if text is None else paths.value_at(from_json(text), path)


def _plus(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other


def _filtered(
    filters: Mapping[str, Any], columns: Sequence[Condition]
) -> tuple[Mapping[str, Any], tuple[Condition, ...]]:
    """Make filters of conditions that say the same."""
    found, rest = dict(filters), list[Condition]()
    for each in columns:
        same = each.op == "=" and each.source in FILTERS and each.value is not None
        if same and each.source not in found:
            found[each.source] = each.value
        else:
            rest.append(each)
    return found, tuple(rest)


def _may_be_indexed(each: Condition) -> bool:
    return each.source in ("state", "tags") and bool(each.path) and conditions.is_indexable(each)


def _of_workflow(
    filters: Mapping[str, Any],
    columns: tuple[Condition, ...],
    by_index: Sequence[Condition],
    other: tuple[Condition, ...],
    known: Mapping[str, str],
) -> list[Part]:
    """Return the parts of one workflow: since its places were declared, and before."""
    indexed = tuple(e for e in by_index if e.source == "tags" or e.name in known)
    rest = tuple(e for e in by_index if e not in indexed) + other
    since, until = conditions.ids_of(columns)
    first = max(known.values(), default="")
    query = Query(filters, columns, indexed, since=max(first, since or "") or None, until=until)
    found = [Part(query, rest, frozenset(known))]
    if first:
        tags = tuple(e for e in indexed if e.source == "tags")
        until = first if until is None else min(first, until)
        older = Query(filters, columns, tags, since=since, until=until)
        found.append(Part(older, tuple(e for e in by_index if e not in tags) + other, frozenset()))
    return found
