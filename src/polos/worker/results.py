"""What the functions of steps say they return, looked up once each."""

from __future__ import annotations

import functools
from types import CodeType
from typing import Any

from polos.core.codec import Codec
from polos.workflow import hints


class ResultHints:
    """Return annotations by function; the codec learns the classes in them."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._known: dict[CodeType, Any] = {}

    def of(self, function: Any) -> Any:
        """Return the annotation, or None if there is none or it cannot be known."""
        plain = function.func if isinstance(function, functools.partial) else function
        code = getattr(plain, "__code__", None)
        if code is None:
            return None
        if code not in self._known:
            hint = self._known[code] = hints.result_of(plain)
            if hint is not None:
                self._codec.know(hint)
        return self._known[code]
