"""What `ctx.patched` answers: decided once for an execution, and recorded.

The new code runs unless the journal goes on behind the call: then an attempt of the old code was
there before. Rows that the code has asked for already do not count, for they may have been on
their way while it made the call; whatever is asked for after an answer is written with it or later.
So an answer that is lost in a crash is found again by the same rule, and nothing waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from polos.core import ids
from polos.core.model import Kind, Row
from polos.errors import UsageError

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


class Patches:
    """The answers of one attempt."""

    __slots__ = ("_answers", "_attempt", "_unwritten")

    def __init__(self, attempt: Attempt) -> None:
        replay = attempt.pump.replay
        self._attempt = attempt
        self._answers = {} if replay is None else replay.patches()
        self._unwritten: list[str] = []

    def answer(self, patch_id: str) -> bool:
        """Say whether the code behind the patch runs, the same every time."""
        known = self._answers.get(patch_id)
        if known is not None:
            return known
        if not isinstance(patch_id, str) or not patch_id or not ids.is_storable(patch_id):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UsageError(
                f"patch id {patch_id!r}: expected a non-empty string without NUL or lone surrogate"
            )
        self._answers[patch_id] = self.is_first()
        self._unwritten.append(patch_id)
        self.write()
        return self._answers[patch_id]

    def is_first(self) -> bool:
        """Say whether no attempt of this execution has been past this point before."""
        replay = self._attempt.pump.replay
        return replay is None or not any(replay.is_ahead(row) for row in replay.unasked())

    def write(self) -> None:
        """Put new answers into the batch that gathers.

        Not while the execution is parked: a number taken then would say that the journal moved on.
        """
        attempt = self._attempt
        if attempt.parked or attempt.parking:
            return
        unwritten, self._unwritten = self._unwritten, []
        for patch_id in unwritten:
            now = attempt.clock.now()
            row = Row(attempt.writer.next_seq(), Kind.PATCH, patch_id, attempt.handed, ok=True)
            row.body = "true" if self._answers[patch_id] else "false"
            row.started_at = row.completed_at = now
            attempt.writer.open().rows.append(row)
