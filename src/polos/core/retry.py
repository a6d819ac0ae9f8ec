"""When may a failed attempt of a step run again, and after which pause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

LONGEST_SECONDS = 100 * 365.25 * 86_400.0
"""No pause and no time limit is longer: 100 years."""
DURABLE_PAUSE_SECONDS = 5.0
"""A longer pause is a durable timer: the execution waits and costs nothing (DESIGN §2.8)."""


@dataclass(slots=True, frozen=True)
class RetryPolicy:
    """Retry parameters of a step; pauses in seconds.

    Defaults and growth are the reference's: the pause before retry n (from 0) is
    `min(base_delay * 2**n, max_delay)`. Unlike it there is no pause after the last failure.
    """

    max_retries: int = 2
    base_delay: float = 1.0
    max_delay: float = 10.0
    jitter: float = 0.0
    retry_if: Callable[[Exception], bool] | None = None
    non_retryable: tuple[type[BaseException], ...] = ()

    def allows(self, error: Exception, tries: int) -> bool:
        """Say whether a step that failed `tries` times, last with `error`, may run again."""
        if tries > self.max_retries or isinstance(error, self.non_retryable):
            return False
        return self.retry_if is None or self.retry_if(error)

    def pause(self, tries: int, chance: float) -> float:
        """Return the seconds to wait after failure number `tries` (from 1).

        `chance` in [0, 1) picks the jitter: up to `jitter` times the pause is added.
        """
        delay = min(self.base_delay * 2.0 ** min(tries - 1, 64), self.max_delay)
        return min(delay * (1.0 + self.jitter * chance), LONGEST_SECONDS)


DEFAULT = RetryPolicy()
