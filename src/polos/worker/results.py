"""What the functions of steps say they return, looked up once each."""

from __future__ import annotations

import functools
from collections.abc import Hashable
from types import CodeType
from typing import Any

from polos.core.codec import Codec
from polos.workflow import hints


class ResultHints:
    """Return annotations by function; the codec learns the classes in them."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._known: dict[tuple[CodeType, Any, str, str], Any] = {}

    def of(self, function: Any) -> Any:
        """Return the annotation, or None if there is none or it cannot be known."""
        plain = function.func if isinstance(function, functools.partial) else function
        code = getattr(plain, "__code__", None)
        written = None if code is None else _written(plain)
        if code is None or written is None:
            return None
        # Functions that one decorator wraps, or one factory makes, share their code; what they
        # return is their own.
        written = written if isinstance(written, Hashable) else id(written)
        key = (code, written, plain.__module__, plain.__qualname__)
        if key not in self._known:
            hint = self._known[key] = hints.result_of(plain)
            if hint is not None:
                self._codec.know(hint)
        return self._known[key]


def _written(function: Any) -> Any:
    try:
        return function.__annotations__.get("return")
    except NameError:  # Python 3.14 evaluates it here, and the class is not there yet
        return NameError
