"""The way to executions that fit conditions on indexed places: as few rows are read as may be.

What is newest is wanted, so what fits often is soonest found by going through the newest
executions. What fits rarely is looked up by its value. What does neither, as old executions with a
value that has many, is found value by value if there are few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from polos.core import spans
from polos.core.model import Execution
from polos.core.where import VALUES_MAX, Condition, Query, Tally, has_spans, spans_of
from polos.store.finding import IN_ERROR, OPEN, is_plain
from polos.store.protocol import Store

STROLL = 1_000
"""So many of the newest executions are gone through before anything is counted."""
WALK = 10_000
"""So many, if no condition is rare."""
FEW = 5_000
"""A condition that so many executions fit is rare: all of them are looked at."""
APART = 20
"""So few values are looked up one after the other if there are other conditions."""
MERGED = 100_000
"""So many entries of the index are merged at most: as many of each value as are wanted."""

_INDEXED = OPEN | IN_ERROR


async def find(store: Store, query: Query, limit: int) -> list[Execution]:
    """List what a query finds, newest first, by the way that reads least."""
    ways = _ways(query)
    is_tree = not query.filters.keys().isdisjoint(("root_id", "parent_id"))
    if not ways or is_tree or "workflow_id" not in query.filters:
        return await store.find(query, limit)
    if not all(each.spans for each in ways):
        return []
    sure = next((each for each in ways if _is_sure(each, limit)), None)
    if sure is not None:
        return await store.find(replace(sure, merged=True), limit)
    found, rest = await _walk(store, query, limit, STROLL)
    if rest is None or len(found) == limit:
        return found
    return found + await _find_rare(store, rest, limit - len(found))


async def tally(store: Store, query: Query, group: str | None, total: str | None) -> list[Tally]:
    """Count what a query finds, by the place that has the fewest values."""
    ways = _ways(query)
    if not ways or "workflow_id" not in query.filters:
        return await store.tally(query, group, total)
    if not all(each.spans for each in ways):
        return []
    return await store.tally(min(ways, key=_width), group, total)


async def _find_rare(store: Store, query: Query, limit: int) -> list[Execution]:
    ways = sorted(_ways(query), key=_width)
    rare = [*ways, *_by_status(query)]
    counts = [(await store.count_entries(each, FEW + 1), n) for n, each in enumerate(rare)]
    count, number = min(counts)
    if count <= FEW:
        return await store.find(rare[number], limit)
    first = ways[0]
    if is_plain(first) and not first.indexed and await _has_few_values(store, first, limit):
        return await store.find(replace(first, merged=True), limit)
    found, rest = await _walk(store, query, limit, WALK)
    if rest is None or len(found) == limit:
        return found
    first = min(_ways(rest), key=_width)
    limit -= len(found)
    if first.spans == spans.EVERYTHING or len(first.spans) > APART:
        return found + await store.find(rest, limit)
    if not _has_points(first):
        return found + await store.find(first, limit)
    more: list[Execution] = []
    for each in first.spans:
        more += await store.find(replace(first, spans=(each,)), limit)
    more.sort(key=lambda each: each.id, reverse=True)
    return found + more[:limit]


async def _walk(
    store: Store, query: Query, limit: int, steps: int
) -> tuple[list[Execution], Query | None]:
    """Go through the newest; returns what fits, and what is left (None: there are no more)."""
    floor = await store.floor(query, steps)
    found = await store.find(query if floor is None else replace(query, since=floor), limit)
    if floor is None:
        return found, None
    return found, replace(query, filters={**query.filters, "before": floor})


async def _has_few_values(store: Store, query: Query, limit: int) -> bool:
    most = min(MERGED // limit, VALUES_MAX)
    if _has_points(query):
        return len(query.spans) <= most
    return most > 1 and await store.count_values(query, most) < most


def _ways(query: Query) -> list[Query]:
    """Return the query once for each place by which it could be looked up."""
    places: dict[str, list[Condition]] = {}
    for each in query.indexed:
        if has_spans(each):
            places.setdefault(each.name, []).append(each)
    found: list[Query] = []
    for name, mine in places.items():
        others = tuple(each for each in query.indexed if each not in mine)
        within = spans.meet(_spans(mine))
        found.append(replace(query, indexed=others, place=name, spans=within))
    return found


def _by_status(query: Query) -> list[Query]:
    return [replace(query, by_status=True)] if query.filters.get("status") in _INDEXED else []


def _spans(conditions: Sequence[Condition]) -> list[Sequence[spans.Span]]:
    found = [spans_of(each) for each in conditions]
    return sorted(found, key=len)


def _has_points(query: Query) -> bool:
    return all(each.is_point for each in query.spans)


def _is_sure(query: Query, limit: int) -> bool:
    """Say whether it is nothing but a look-up of values, each in its order."""
    is_alone = _has_points(query) and is_plain(query) and not query.indexed
    return is_alone and (len(query.spans) == 1 or len(query.spans) * limit <= MERGED)


def _width(query: Query) -> tuple[bool, bool, int]:
    return query.spans == spans.EVERYTHING, not _has_points(query), len(query.spans)
