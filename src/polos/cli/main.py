"""The entry point of `polos`: runs the command line, and turns errors into messages and codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

from polos.cli import exits

try:
    from polos.cli import (
        answers,
        carrying,
        commands,
        database,
        events,
        operations,
        output,
        rewinding,
        streams,
    )
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in {"typer", "rich"}:
        raise
    sys.stderr.write("polos: typer and rich are not installed; pip install 'polos[cli]'\n")
    raise SystemExit(exits.Exit.USAGE.value) from None


__all__ = [
    "answers",
    "carrying",
    "database",
    "events",
    "main",
    "operations",
    "rewinding",
    "streams",
]
# All but `main` register their commands with `commands`.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `polos` with the arguments (default: those of the process); return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter gets a question mark, not a traceback.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        commands.app(arguments, prog_name="polos")
    except exits.REPORTED as error:
        output.complain(str(error))
        return exits.of(error)
    return exits.Exit.OK
