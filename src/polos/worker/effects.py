"""What `ctx` asks for beside steps: transactions, undoing by hand, and the next run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

from polos.worker import renewing, transacting

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


class Effects:
    """`polos.workflow.port.EffectPort` for an attempt."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def transaction(
        self,
        key: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Coroutine[Any, Any, Any]:
        """Run a function inside the transaction that records its step."""
        return transacting.run(self._attempt, key, function, args, kwargs)

    def compensate(self) -> Coroutine[Any, Any, list[str]]:
        """Undo what was done so far."""
        return self._attempt.saga.undo(unknown=False)

    def renew(self, payload: Any, state: Any, *, drop_compensations: bool) -> NoReturn:
        """Leave this run of the execution for the next one."""
        renewing.renew(self._attempt, payload, state, drop_compensations=drop_compensations)
