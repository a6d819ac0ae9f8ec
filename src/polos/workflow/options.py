"""Options of steps as values: lengths of time and retry policies, checked."""

from __future__ import annotations

import math
from typing import Any, cast

from polos.core.retry import RetryPolicy
from polos.errors import UsageError
from polos.workflow.asking import is_number

_UNITS = (1, 60, 3600, 86_400, 604_800)


def seconds_of(step_key: str, *given: float | None) -> float:
    """Return the sum of seconds, minutes, hours, days and weeks."""
    total = 0.0
    for value, unit in zip(given, _UNITS, strict=True):
        if value is None:
            continue
        if not is_number(value):
            raise UsageError(f"step {step_key!r}: expected a number to wait, not {value!r}")
        total += value * unit
    return total


def retry_policy(
    step_key: str,
    max_retries: Any,
    base_delay: Any,
    max_delay: Any,
    jitter: Any,
    retry_if: Any,
    non_retryable: Any,
) -> RetryPolicy:
    """Return the policy that these parameters of `run` describe; UsageError if there is none."""
    where = f"step {step_key!r}"
    if not isinstance(max_retries, int) or isinstance(max_retries, bool) or max_retries < 0:
        raise UsageError(f"{where}: max_retries is an int of 0 or more, not {max_retries!r}")
    named = {"base_delay": base_delay, "max_delay": max_delay, "jitter": jitter}
    for name, value in named.items():
        if not is_number(value) or not 0 <= value < math.inf:
            raise UsageError(f"{where}: {name} is a finite number of 0 or more, not {value!r}")
    if retry_if is not None and not callable(retry_if):
        raise UsageError(f"{where}: retry_if is a function of the error, not {retry_if!r}")
    types: Any = (non_retryable,) if isinstance(non_retryable, type) else non_retryable or ()
    for each in types:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise UsageError(f"{where}: non_retryable has classes of exceptions, not {each!r}")
    return RetryPolicy(
        max_retries, base_delay, max_delay, jitter, cast("Any", retry_if), tuple(types)
    )
