"""How many positional arguments a user's function takes of those that it could be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def takes(function: Callable[..., Any], most: int) -> int:
    """Return how many of up to `most` positional arguments a function is called with.

    One without a signature, as some builtins are, gets them all.
    """
    parameters = _parameters(function)
    if parameters is None or _takes_any(parameters):
        return most
    return min(most, sum(1 for p in parameters if p.kind in _POSITIONAL))


def wants_one(function: Callable[..., Any]) -> bool:
    """Say whether a function is called with the one argument that there is for it.

    Not if it only has parameters with defaults: `lambda item=item: undo(item)` binds its own.
    """
    parameters = _parameters(function)
    return parameters is None or _required(parameters) > 0 or _takes_any(parameters)


def required(function: Callable[..., Any]) -> int:
    """Return how many positional arguments a function cannot be called without."""
    return _required(_parameters(function) or [])


def _parameters(function: Callable[..., Any]) -> list[Parameter] | None:
    """Return what a function declares; None for one without a signature."""
    try:
        return [*inspect.signature(function).parameters.values()]
    except ValueError:
        return None


def _takes_any(parameters: list[Parameter]) -> bool:
    return any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _required(parameters: list[Parameter]) -> int:
    return sum(1 for p in parameters if p.kind in _POSITIONAL and p.default is p.empty)
