"""Spans of ranks: a rank is within the spans of conditions if and only if its value fits them."""

import random
from typing import Any

import pytest

from polos.core import ids, spans, where
from polos.core.spans import Span
from polos.core.where import Condition

VALUES: list[Any] = [None, True, False, 0, 1, -2, 2.5, 10**20, "", "a", "b", "ab", "%"]


def holds(each: Span, rank: str) -> bool:
    above = rank > each.low or (rank == each.low and each.with_low)
    below = each.high is None or rank < each.high or (rank == each.high and each.with_high)
    return above and below


def one(chance: random.Random) -> Condition:
    op = chance.choice(["=", "!=", "<", "<=", ">", ">=", "in", "exists"])
    value: Any = chance.choice(VALUES if op in ("=", "!=") else VALUES[3:])
    if op == "in":
        value = chance.sample(VALUES, chance.randrange(4))
    elif op == "exists":
        value = True
    return where.condition("state", ("x",), op, value)


@pytest.mark.parametrize("seed", range(5))
def test_spans_hold_what_fits_all_conditions(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        given = [one(chance) for _ in range(chance.randrange(1, 4))]
        found = spans.meet(map(where.spans_of, given))
        for value in VALUES:
            rank = where.rank(value)
            inside = [each for each in found if holds(each, rank)]
            assert len(inside) == all(where.fits(each, value) for each in given), (given, value)


def test_what_no_span_tells_is_known() -> None:
    told = {"contains": False, "exists": True, "=": True}
    for op, has in told.items():
        value = True if op == "exists" else 1
        assert where.has_spans(where.condition("state", ("x",), op, value)) == has
    assert not where.has_spans(where.condition("state", ("x",), "exists", False))


def test_times_of_creation_bound_ids() -> None:
    at = 1_700_000_000_123_456
    moment = where.EPOCH.__class__.fromtimestamp(at / 1e6, where.EPOCH.tzinfo)
    for op, first, last in (("<", False, True), (">=", True, False), ("=", True, True)):
        since, until = where.ids_of([where.condition("created_at", (), op, moment)])
        assert ((since is not None), (until is not None)) == (first, last)
        inside = ids.new_id(at)
        assert since is None or since <= inside
        assert until is None or inside < until
    far = where.condition("created_at", (), ">", "9999-12-31T00:00:00+00:00")
    assert where.ids_of([far])[0] is not None
    old = where.condition("created_at", (), "<", "1900-01-01T00:00:00+00:00")
    since, until = where.ids_of([old])
    assert since is None
    assert until is not None
    assert until < ids.new_id(at)
    assert where.ids_of([where.condition("created_at", (), "exists", True)]) == (None, None)
