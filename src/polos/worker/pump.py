"""The pump: hands rows to the code, turn by turn, live and on replay (JOURNAL 6).

Sequential code gets its rows at once. In concurrent code each turn is followed by a fixed number
of loop turns in which nothing else is handed over, live as well as on replay: what the code makes
of a result before the next one comes is then the same.
"""

from __future__ import annotations

import heapq
import logging
from collections import deque
from typing import TYPE_CHECKING

from polos.core.model import Kind, Row
from polos.errors import NonDeterminismError

if TYPE_CHECKING:
    from polos.worker.asks import Ask
    from polos.worker.attempt import Attempt

log = logging.getLogger("polos.replay")

SETTLE_TURNS = 16
"""Loop turns between two turns of concurrent code: enough for a result to travel through nested
gathers and task groups to the code that decides on it."""
PATIENCE_SECONDS = 1.0

Handover = "tuple[Ask | None, Row]"


class Pump:
    """Hands over rows of one attempt; holds the journal while it is being replayed."""

    def __init__(self, attempt: Attempt, rows: list[Row]) -> None:
        self._attempt = attempt
        self._queue: deque[list[tuple[Ask | None, Row]]] = deque()
        self.settling = False
        self.replaying = False
        self._load(rows)

    # -- the journal --------------------------------------------------------------------------

    def _load(self, rows: list[Row]) -> None:
        self._index: dict[str, Row] = {r.key: r for r in rows if r.key and r.kind != Kind.STATE}
        closed = [r for r in rows if r.turn is not None and r.kind != Kind.STATE]
        closed.sort(key=lambda r: (r.turn, r.seq))
        self._groups: list[list[Row]] = []
        for row in closed:
            if self._groups and self._groups[-1][0].turn == row.turn:
                self._groups[-1].append(row)
            else:
                self._groups.append([row])
        self._flushes = [r for r in rows if r.kind == Kind.STATE and r.pinned]
        self._position = 0
        self._over: set[int] = set()
        """Rows that were handed over or skipped, by seq."""
        self._asks: dict[int, Ask] = {}
        self._unasked = [(r.asked, r.seq, r) for r in rows if r.key and r.kind != Kind.STATE]
        heapq.heapify(self._unasked)
        self._held: list[Ask] = []
        self._last_ask = 0.0
        self._timing = False
        self._warned = False
        self.replaying = bool(self._groups)

    def find(self, key: str) -> Row | None:
        """Return the row that the journal has under this key."""
        return self._index.get(key)

    def _next_group(self) -> list[Row] | None:
        while self._position < len(self._groups):
            group = self._groups[self._position]
            if any(row.seq not in self._over for row in group):
                return group
            self._position += 1
        return None

    # -- live ---------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Say whether nothing waits to be handed over."""
        return not self._queue and not self.settling

    def deliver(self, turn: list[tuple[Ask | None, Row]]) -> None:
        """Hand over rows that became durable together, as one turn."""
        if self._attempt.alone:
            self._hand_over(turn)
        elif self._queue or self.settling:
            self._queue.append(turn)
        else:
            self._hand_over(turn)
            self._settle()

    def _settle(self) -> None:
        self.settling = True
        self._attempt.loop.call_soon(self._count_down, SETTLE_TURNS)

    def _count_down(self, turns: int) -> None:
        if turns:
            self._attempt.loop.call_soon(self._count_down, turns - 1)
            return
        self.settling = False
        if self._attempt.sealed:
            return
        if self._queue:
            self._hand_over(self._queue.popleft())
            self._settle()
        elif self.replaying:
            self._advance()
        else:
            self._attempt.waiting.rest()

    def _hand_over(self, turn: list[tuple[Ask | None, Row]]) -> None:
        for ask, row in turn:
            self._attempt.hand_over(ask, row, replayed=False)

    # -- replay -------------------------------------------------------------------------------

    def asked(self, ask: Ask) -> None:
        """Note that the code asked for a row that the journal has."""
        row = ask.row
        if row is not None:
            self._asks[row.seq] = ask
        self._last_ask = self._attempt.clock.monotonic()

    def take(self, ask: Ask) -> bool:
        """Hand a recorded row over at once, if the root task is alone; else when its turn comes."""
        row = ask.row
        assert row is not None
        if not ask.alone:
            if row.seq in self._over:  # skipped before, asked for now after all
                self.deliver([(ask, row)])
            elif not self.settling:
                self._attempt.loop.call_soon(self._advance)
            return False
        if self._cancel_before(row.turn):
            return False
        self._replay([row])
        return True

    def live(self, ask: Ask) -> bool:
        """Say whether a step that the journal does not have may run now.

        In concurrent code it is held until the replay is over; it is then released through
        `ask.release()`.
        """
        if ask.alone:
            self._pin_flushed()
            return not self._cancel_before(None)
        self._held.append(ask)
        if not self.settling:
            self._attempt.loop.call_soon(self._advance)
        return False

    def _pin_flushed(self) -> None:
        # A change that was recorded by itself, while the step asked for next was running.
        for row in self._flushes:
            if row.asked == self._attempt.handed:
                self._attempt.pin(row)

    def _cancel_before(self, turn: int | None) -> bool:
        group = self._next_group()
        if group is None or (turn is not None and (group[0].turn or 0) >= turn):
            return False
        cancel = next((r for r in group if r.kind == Kind.CANCEL), None)
        if cancel is None:
            return False
        self._replay([cancel])
        return True

    def _replay(self, rows: list[Row]) -> None:
        for row in rows:
            self._over.add(row.seq)
            self._attempt.hand_over(self._asks.get(row.seq), row, replayed=True)
        if self._next_group() is None:
            self._finish()

    def _finish(self) -> None:
        self.replaying = False
        held, self._held = self._held, []
        self._attempt.replayed()
        for ask in held:
            ask.release()

    def _advance(self) -> None:
        if self.settling or not self.replaying or self._attempt.sealed:
            return
        group = self._next_group()
        if group is None:
            self._finish()
            return
        rest = [r for r in group if r.seq not in self._over]
        if self._is_due(rest):
            self._replay(rest)
            self._settle()
        elif not self._timing:
            self._timing = True
            self._attempt.clock.call_later(PATIENCE_SECONDS, self._lose_patience)

    def _is_due(self, rows: list[Row]) -> bool:
        if not all(r.kind == Kind.CANCEL or r.seq in self._asks for r in rows):
            return False
        unasked = self._unasked
        while unasked and (unasked[0][1] in self._asks or unasked[0][1] in self._over):
            heapq.heappop(unasked)
        return not unasked or unasked[0][0] > self._attempt.handed

    def _lose_patience(self) -> None:
        self._timing = False
        if self.settling or not self.replaying or self._attempt.sealed:
            return
        waited = self._attempt.clock.monotonic() - self._last_ask
        if waited < PATIENCE_SECONDS * 0.99:
            self._timing = True
            left = PATIENCE_SECONDS - waited
            self._attempt.clock.call_later(left, self._lose_patience)
            return
        group = self._next_group() or []
        handed = self._attempt.handed
        missing = {r.seq: r for _, _, r in self._unasked if r.asked <= handed}
        missing |= {r.seq: r for r in group if r.kind != Kind.CANCEL}
        for seq, row in missing.items():
            if seq not in self._asks:
                self._skip(row)
        self._advance()

    def _skip(self, row: Row) -> None:
        self._over.add(row.seq)
        self.complain(f"the code did not ask for the recorded step {row.key!r} ({row.kind})")

    def complain(self, what: str) -> None:
        """Report that the code does not follow the journal: a warning, an error if strict."""
        text = (
            f"execution {self._attempt.execution_id} of {self._attempt.workflow.id!r}: {what}; "
            "the workflow's code changed since it was recorded, or is not deterministic outside "
            "its steps"
        )
        if self._attempt.strict:
            self._attempt.fail(NonDeterminismError(text))
        elif not self._warned:
            self._warned = True
            log.warning(text)

    def ended(self) -> None:
        """The function returned: rows that nobody asked for are reported."""
        if self.replaying and (group := self._next_group()) is not None:
            row = next((r for r in group if r.seq not in self._over), group[0])
            self.complain(f"it returned without asking for the recorded step {row.key!r}")
