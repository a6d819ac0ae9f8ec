"""The entry point of `polos`: runs the command line, and turns errors into messages and codes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from polos.cli import exits

try:
    from polos.cli import commands, output
except ModuleNotFoundError as missing:
    if missing.name not in {"typer", "rich"}:
        raise
    commands = output = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `polos` with the arguments (default: those of the process); return its exit code."""
    if commands is None or output is None:
        sys.stderr.write("polos: typer and rich are not installed; pip install 'polos[cli]'\n")
        return exits.Exit.USAGE
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter gets a question mark, not a traceback.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        return commands.run(arguments)
    except exits.REPORTED as error:
        if isinstance(error, BrokenPipeError):  # the reader went away, as `head` does
            with contextlib.suppress(OSError):
                sys.stdout.close()
            return exits.Exit.OK
        output.complain(str(error))
        return exits.of(error)
    except KeyboardInterrupt:
        return exits.Exit.INTERRUPTED
