"""How many positional arguments a user's function takes of those that it could be given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def takes(function: Callable[..., Any], most: int) -> int:
    """Return how many of up to `most` positional arguments a function is called with.

    One without a signature, as some builtins are, gets them all.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return most
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return most
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(most, sum(1 for p in parameters if p.kind in positional))


def wants_one(function: Callable[..., Any]) -> bool:
    """Say whether a function is called with the one argument that there is for it.

    Not if it only has parameters with defaults: `lambda item=item: undo(item)` binds its own.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return True
    return required(function) > 0 or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def required(function: Callable[..., Any]) -> int:
    """Return how many positional arguments a function cannot be called without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(1 for p in parameters if p.kind in positional and p.default is p.empty)
