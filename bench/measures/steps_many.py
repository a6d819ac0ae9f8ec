"""1,000 and 100 executions at once, without state."""

from __future__ import annotations

from bench.crowd import measure_crowds
from bench.session import Session
from bench.workflows import nap_steps, steps


def measure(session: Session) -> None:
    """Measure with bodies that return at once, and with bodies that sleep 0 to 20 ms."""
    measure_crowds(session, steps, nap_steps)
