"""1,000 and 100 executions at once, each with a state of 1 KB that changes at every step."""

from __future__ import annotations

from bench.crowd import measure_crowds
from bench.session import Session
from bench.workflows import state_nap_steps, state_steps


def measure(session: Session) -> None:
    """Measure with bodies that return at once, and with bodies that sleep 0 to 20 ms."""
    measure_crowds(session, state_steps, state_nap_steps)
