"""The pump: hands rows to the code, turn by turn, live and on replay (JOURNAL 6).

Sequential code gets its rows at once. In concurrent code each turn is followed by a fixed number
of loop turns in which nothing else is handed over, live as well as on replay: what the code makes
of a result before the next one comes is then the same.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from polos.core.model import Kind, Row
from polos.worker.asks import Ask
from polos.worker.replay import Replay

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt

SETTLE_TURNS = 16
"""Loop turns between two turns of concurrent code: enough for a result to travel through nested
gathers and task groups to the code that decides on it."""

Turn = list[tuple[Ask | None, Row]]


class Pump:
    """Hands over rows of one attempt."""

    __slots__ = ("_attempt", "_queue", "interrupts", "replay", "settling")

    def __init__(self, attempt: Attempt, rows: list[Row]) -> None:
        self._attempt = attempt
        self._queue: deque[Turn] | None = None
        self.settling = False
        self.interrupts = False
        """A cancellation was handed over at the last ask, where the code is to leave."""
        self.replay = Replay(attempt, self, rows) if rows else None

    @property
    def replaying(self) -> bool:
        """Say whether the code is still behind what the journal recorded."""
        return self.replay is not None and self.replay.active

    @property
    def idle(self) -> bool:
        """Say whether nothing waits to be handed over."""
        return not self._queue and not self.settling

    def deliver(self, turn: Turn) -> None:
        """Hand over rows that became durable together, as one turn."""
        if self._attempt.alone:
            self.flush()
            self._hand_over(turn)
        elif self._queue or self.settling:
            if self._queue is None:
                self._queue = deque()
            self._queue.append(turn)
        else:
            self._hand_over(turn)
            self.settle()

    def flush(self) -> None:
        """Hand over what still waits: the root task is alone, there is nobody to let settle."""
        while self._queue:
            self._hand_over(self._queue.popleft())

    def flush_at_ask(self) -> None:
        """Hand over what still waits ahead of something that the root task asks for now.

        A cancellation among it does not interrupt the task, which runs, before it awaits something;
        the step asked for may not do so. It is the place where a replay interrupts it.
        """
        if self._queue:
            closing = self._attempt.saga.is_closing
            told = any(row.kind == Kind.CANCEL for turn in self._queue for _, row in turn)
            self.flush()
            self.interrupts = told and not closing

    def settle(self) -> None:
        """Let the code make what it will of a turn before the next one."""
        if not self.settling:
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
            self.settle()
        elif self.replay is not None and self.replay.active:
            self.replay.advance()
        else:
            self._attempt.waiting.rest()

    def _hand_over(self, turn: Turn) -> None:
        for ask, row in turn:
            self._attempt.hand_over(ask, row, replayed=False)
