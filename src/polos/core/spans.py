"""Stretches of ranks: where in an index the values are that fit conditions on one place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """Ranks from `low` up to `high`; `high` None is without end."""

    low: str = ""
    high: str | None = None
    with_low: bool = True
    with_high: bool = False

    @property
    def is_point(self) -> bool:
        """Say whether it is one rank only."""
        return self.low == self.high

    def meet(self, other: Span) -> Span | None:
        """Return what both have, or None."""
        low = max((self.low, not self.with_low), (other.low, not other.with_low))
        ends = [(each.high, each.with_high) for each in (self, other) if each.high is not None]
        high, with_high = min(ends) if ends else (None, False)
        both = with_high and not low[1]
        if high is not None and (low[0] > high or (low[0] == high and not both)):
            return None
        return Span(low[0], high, not low[1], with_high)


EVERYTHING = (Span(),)


def point(text: str) -> Span:
    """Return the span of one rank."""
    return Span(text, text, with_high=True)


def meet(each: Iterable[Sequence[Span]]) -> tuple[Span, ...]:
    """Return what all of these have, in order; () if that is nothing."""
    found: Sequence[Span] = EVERYTHING
    for mine in each:
        met = (one.meet(other) for one in found for other in mine)
        found = [each for each in met if each is not None]
    return tuple(sorted(found, key=lambda each: (each.low, not each.with_low)))
