"""What runs behind a client, as `polos.app` joins it."""

from __future__ import annotations

from typing import Any, Protocol

from polos.core.codec import Codec
from polos.workflow.registry import Registry


class Node(Protocol):
    """An opened store with its worker, as `polos.app` joins them."""

    engine: Any
    runner: Any
    pruning: Any
    codec: Codec
    registry: Registry
    read_only: bool

    async def close(self) -> None:
        """Drain, hand back, close."""
        ...

    def leave_now(self) -> None:
        """Hand everything back without an event loop."""
        ...
