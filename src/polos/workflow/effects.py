"""Effects on the outside: how an author says that they are undone, and whether they took place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from polos.errors import UsageError


@dataclass(slots=True, frozen=True)
class Done:
    """A reconciliation's answer: the effect took place, and this is the step's result."""

    result: Any = None


@dataclass(slots=True, frozen=True)
class NotDone:
    """A reconciliation's answer: the effect did not take place, and may be tried."""


@dataclass(slots=True, frozen=True)
class Unknown:
    """A reconciliation's answer: it cannot be told; the execution waits until somebody knows."""

    reason: str = ""


@dataclass(slots=True, frozen=True)
class Effect:
    """How a step is undone, and how it is found out whether it was done."""

    compensate: Callable[..., Any] | None = None
    reconcile: Callable[..., Any] | None = None


def effect(step_key: str, compensate: Any, reconcile: Any) -> Effect | None:
    """Return what these parameters of `ctx.step.run` say; None if they say nothing."""
    for name, given in (("compensate", compensate), ("reconcile", reconcile)):
        if given is not None and not callable(given):
            raise UsageError(
                f"step {step_key!r}: {name} is a function, not {given!r}; pass the function "
                "itself, without calling it"
            )
    if compensate is None and reconcile is None:
        return None
    return Effect(compensate, reconcile)
