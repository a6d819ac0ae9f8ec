"""The walk of every verb that acts once: handed over if it is recorded, else lived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from polos.core.model import Kind
from polos.worker import bodies
from polos.worker.asks import Ask

if TYPE_CHECKING:
    from polos.worker.attempt import Attempt


async def once(
    attempt: Attempt, kind: Kind, key: str, live: Callable[[Ask], Awaitable[None] | None]
) -> Any:
    """Return what the journal has under a key, or what `live` records, or opens, for it."""
    ask = attempt.ask(kind, key)
    try:
        if not await attempt.recorded(ask):
            await attempt.go_live(ask)
            awaited = live(ask)
            if awaited is not None:
                await awaited
            await attempt.settled(ask)
        return bodies.result(attempt, ask)
    finally:
        attempt.close(ask)
