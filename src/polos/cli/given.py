"""What is given as JSON: in an argument, or on standard input."""

from __future__ import annotations

import json
import sys
from typing import Any

from polos.cli import text
from polos.errors import UsageError

SHOWN_MAX = 60


def document(name: str, given: str, hint: str = "") -> Any:
    """Return what a text says as JSON; `UsageError` that names the option if it is none."""
    try:
        return json.loads(given)
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as error:
        why = str(error)
    raise UsageError(f"{name} {text.cut(given, SHOWN_MAX)!r} is not JSON: {why}{hint}")


def read(name: str, given: str) -> str:
    """Return the text of an option, for which `-` is standard input."""
    if given != "-":
        return given
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: standard input is no text: {error}") from None
