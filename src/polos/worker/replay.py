"""The journal of an execution while it is replayed (JOURNAL 6).

Rows are handed over turn by turn in recorded order. In concurrent code a turn waits until
everything that had been asked for at its time has been asked for again; if nothing is asked for
within a second, what is missing is skipped. Replay never waits for ever.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from polos.core.model import HIDDEN_KINDS, UNASKED_KINDS, Kind, Row
from polos.errors import NonDeterminismError

if TYPE_CHECKING:
    from polos.worker.asks import Ask
    from polos.worker.attempt import Attempt
    from polos.worker.pump import Pump

log = logging.getLogger("polos.replay")

PATIENCE_SECONDS = 1.0


class Replay:
    """Recorded rows of one attempt, and how far the code has come in them."""

    def __init__(self, attempt: Attempt, pump: Pump, rows: list[Row]) -> None:
        self._attempt = attempt
        self._pump = pump
        self._asked_for = [r for r in rows if r.key and r.kind not in HIDDEN_KINDS]
        self._index: dict[str, Row] = {r.key: r for r in self._asked_for if r.key}
        self._rows = [r for r in rows if r.turn is not None and r.kind != Kind.STATE]
        self._starts = _turns(self._rows)
        self._flushes = [r for r in rows if r.kind == Kind.STATE and r.pinned]
        self._patches = [r for r in rows if r.kind == Kind.PATCH]
        self._position = 0
        self._turn = 0
        """The last turn that was handed over."""
        self._over: set[int] = set()
        """Rows that were handed over or skipped, by seq."""
        self._asks: dict[int, Ask | None] = {}
        """What was asked for, by the seq of its row; None once that was handed over."""
        self._unasked: list[tuple[int, int, Row]] | None = None
        self._held: list[Ask] = []
        self._last_ask = 0.0
        self._timing = False
        self._warned = False
        self.active = bool(self._rows)

    def begin(self) -> None:
        """Hand over changes of state that were made from outside before the code asked for more."""
        first = min((row.seq for row in self._asked_for), default=None)
        self._hand_over_patches(first)

    def _hand_over_patches(self, before: int | None) -> None:
        """Hand over the patches that stand next, up to a row (by seq)."""
        while (group := self._next_group()) and all(r.kind == Kind.PATCH_STATE for r in group):
            if before is not None and group[0].seq > before:
                break
            self._hand_over(group)

    def find(self, key: str) -> Row | None:
        """Return the row that the journal has under this key."""
        return self._index.get(key)

    def asked(self, ask: Ask) -> None:
        """Note that the code asked for something."""
        if ask.row is not None:
            self._asks[ask.row.seq] = ask
        self._last_ask = self._attempt.clock.monotonic()

    def unasked(self) -> Iterator[Row]:
        """Return the steps that the journal has and the code has not asked for, as recorded."""
        return (row for row in self._index.values() if row.seq not in self._asks)

    def is_ahead(self, row: Row) -> bool:
        """Say whether a row was recorded, or opened, behind the point that the code has come to."""
        return row.seq not in self._over and (row.turn is None or row.turn > self._turn)

    def patches(self) -> dict[str, bool]:
        """Return the answers of `ctx.patched` that the journal has."""
        return {row.key: row.body == "true" for row in self._patches if row.key}

    # -- sequential code ----------------------------------------------------------------------

    def take(self, ask: Ask) -> bool:
        """Hand a recorded row over at once, if the root task is alone; else when its turn comes."""
        row = ask.row
        assert row is not None
        if not ask.alone:
            if row.seq in self._over:  # skipped before, asked for now after all
                self._pump.deliver([(ask, row)])
            else:
                self._advance_soon()
            return False
        if self._catch_up(row.turn):
            return False
        self._asks[row.seq] = ask
        self._hand_over([row])
        return True

    def live(self, ask: Ask) -> bool:
        """Say whether a step that the journal does not have may run now.

        In concurrent code it is held until the replay is over; it is then released.
        """
        if not ask.alone:
            self._held.append(ask)
            self._advance_soon()
            return False
        return not self._catch_up(None)

    def pin_flushed(self, ask: Ask) -> None:
        """Restore a change that was recorded by itself while the step asked for now was running."""
        if ask.alone:
            for row in self._flushes:
                if row.key == ask.key and row.asked == self._attempt.handed:
                    self._attempt.pin(row)

    def _catch_up(self, turn: int | None) -> bool:
        """Hand over what stands before `turn` and was asked for by code that gave it up since.

        Says whether a cancellation was among it: then the code goes no further.
        """
        for place in range(self._position, len(self._starts) - 1):
            group = self._group(place)
            if turn is not None and (group[0].turn or 0) >= turn:
                break
            for row in group:
                if row.seq in self._over:
                    continue
                if row.kind == Kind.CANCEL:
                    self._hand_over([row])
                    return True
                ask = self._asks.get(row.seq)
                if row.kind == Kind.PATCH_STATE or (ask is not None and ask.is_over):
                    self._hand_over([row])
        return False

    # -- turn by turn -------------------------------------------------------------------------

    def _group(self, place: int) -> list[Row]:
        return self._rows[self._starts[place] : self._starts[place + 1]]

    def _next_group(self) -> list[Row] | None:
        while self._position < len(self._starts) - 1:
            group = self._group(self._position)
            for row in group:
                if row.seq not in self._over:
                    return group
            self._position += 1
        return None

    def _hand_over(self, rows: list[Row]) -> None:
        for row in rows:
            self._over.add(row.seq)
            self._turn = max(self._turn, row.turn or 0)
            ask = self._asks.get(row.seq)
            if ask is not None:
                self._asks[row.seq] = None
            self._attempt.hand_over(ask, row, replayed=True)
        if self._next_group() is None:
            self._finish()

    def _finish(self) -> None:
        if not self.active:
            return
        self.active = False
        held, self._held = self._held, []
        self._attempt.replayed()
        for ask in held:
            ask.release()

    def _advance_soon(self) -> None:
        if not self._pump.settling:
            self._attempt.loop.call_soon(self.advance)

    def advance(self) -> None:
        """Hand over the next turn, if the code has come to it."""
        if self._pump.settling or not self.active or self._attempt.sealed:
            return
        group = self._next_group()
        if group is None:
            self._finish()
            return
        rest = [r for r in group if r.seq not in self._over]
        if self._is_due(rest):
            self._hand_over(rest)
            self._pump.settle()
        elif not self._timing:
            self._timing = True
            self._attempt.clock.call_later(PATIENCE_SECONDS, self._lose_patience)

    def _is_due(self, rows: list[Row]) -> bool:
        if not all(r.kind in UNASKED_KINDS or r.seq in self._asks for r in rows):
            return False
        unasked = self._to_ask()
        while unasked and (unasked[0][1] in self._asks or unasked[0][1] in self._over):
            heapq.heappop(unasked)
        return not unasked or unasked[0][0] > self._attempt.handed

    def _to_ask(self) -> list[tuple[int, int, Row]]:
        """Return a heap, by when they were asked for, of rows that the code may not have come to.

        Only concurrent code needs it.
        """
        if self._unasked is None:
            self._unasked = [(r.asked, r.seq, r) for r in self._asked_for]
            heapq.heapify(self._unasked)
        return self._unasked

    # -- what does not fit --------------------------------------------------------------------

    def _lose_patience(self) -> None:
        self._timing = False
        if self._pump.settling or not self.active or self._attempt.sealed:
            return
        left = self._last_ask + PATIENCE_SECONDS - self._attempt.clock.monotonic()
        if left > 0.01:
            self._timing = True
            self._attempt.clock.call_later(left, self._lose_patience)
            return
        handed = self._attempt.handed
        missing = {r.seq: r for _, _, r in self._to_ask() if r.asked <= handed}
        missing |= {r.seq: r for r in self._next_group() or [] if r.kind not in UNASKED_KINDS}
        for seq, row in missing.items():
            if seq not in self._asks and seq not in self._over:
                self._over.add(seq)
                self._complain(f"the code did not ask for the recorded step {row.key!r}", row)
        self.advance()

    def ended(self) -> None:
        """The function returned: rows that nobody asked for are reported."""
        self._hand_over_patches(None)
        group = self._next_group() if self.active else None
        if group is not None:
            row = next((r for r in group if r.seq not in self._over), group[0])
            self._complain(f"it returned without asking for the recorded step {row.key!r}", row)

    def _complain(self, what: str, row: Row) -> None:
        text = (
            f"execution {self._attempt.execution_id} of {self._attempt.workflow.id!r}: {what}; "
            "the workflow's code changed since it was recorded, or is not deterministic outside "
            "its steps"
        )
        if self._attempt.strict:
            self._attempt.fail(NonDeterminismError(text, step_key=row.key, reason=what))
        elif not self._warned:
            self._warned = True
            log.warning(text)


def _turns(rows: list[Row]) -> list[int]:
    """Bring rows into their order; returns where each turn begins, and the end."""
    rows.sort(key=lambda r: (r.turn, r.seq))
    starts: list[int] = []
    turn = None
    for place, row in enumerate(rows):
        if row.turn != turn:
            turn = row.turn
            starts.append(place)
    return [*starts, len(rows)]
