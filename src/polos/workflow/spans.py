"""Spans: OpenTelemetry's if the application has loaded it, else a plain record of one block."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator, Mapping
from typing import Any


class Span:
    """A measured block; `attributes` and the error that ended it, if one did."""

    def __init__(self, name: str, attributes: Mapping[str, Any] | None, real: Any = None) -> None:
        self.name = name
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.error: BaseException | None = None
        self._real = real

    def set_attribute(self, key: str, value: Any) -> None:
        """Add a fact to the span."""
        self.attributes[key] = value
        if self._real is not None:
            self._real.set_attribute(key, value)


@contextlib.contextmanager
def span(
    name: str, attributes: Mapping[str, Any] | None, execution_id: str
) -> Generator[Span, None, None]:
    """Open a span; OpenTelemetry is used only if it is in the process already."""
    trace: Any = sys.modules.get("opentelemetry.trace")
    with contextlib.ExitStack() as stack:
        real = None
        if trace is not None:
            tracer = trace.get_tracer("polos")
            facts = {"polos.execution_id": execution_id, **(attributes or {})}
            real = stack.enter_context(tracer.start_as_current_span(name, attributes=facts))
        opened = Span(name, attributes, real)
        try:
            yield opened
        except BaseException as error:
            opened.error = error
            raise
