"""The context of the workflow that is running here, if any."""

from contextvars import ContextVar
from typing import Any

current_context: ContextVar[Any] = ContextVar("polos_current_context", default=None)
