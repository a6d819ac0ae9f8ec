"""The exit codes of `polos`: what each means, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum

from polos.errors import (
    ConflictError,
    ExecutionNotFoundError,
    PolosError,
    StepNotFoundError,
    StoreError,
    UsageError,
)


class Exit(IntEnum):
    """How the command ended; 5 is kept for denied access, which embedded stores do not know."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    STORE = 6
    DIVERGES = 7
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "the execution that was waited for did not end as it should: with show --follow "
    "it failed or was cancelled, with cancel --wait it was not cancelled. Of reset: the answer was "
    "no. Of worker: a process "
    "failed or had to be killed when it stopped",
    Exit.USAGE: "the command line is wrong, or typer and rich are not installed",
    Exit.NOT_FOUND: "no such execution, or no such step of it",
    Exit.CONFLICT: "the execution is not in a status that allows it",
    Exit.STORE: "the database is missing, locked, read-only, full, damaged, of a newer release, or "
    "encrypted with another key",
    Exit.DIVERGES: "check: the code in hand would leave the journal of a live execution; "
    "state migrate: it could not load a state",
    Exit.INTERRUPTED: "left with Ctrl-C; the execution goes on. Of worker: a second signal ended "
    "it at once",
}

# The first class that fits decides. An OSError is a database file or folder out of reach, but the
# timeouts of our own tree are OSErrors too: they stand before it.
_BY_ERROR: list[tuple[type[Exception], Exit]] = [
    (ExecutionNotFoundError, Exit.NOT_FOUND),
    (StepNotFoundError, Exit.NOT_FOUND),
    (ConflictError, Exit.CONFLICT),
    (UsageError, Exit.USAGE),
    (StoreError, Exit.STORE),
    (PolosError, Exit.FAILED),
    (OSError, Exit.STORE),
]

REPORTED = (PolosError, OSError)
"""Errors that end with a message on stderr; any other is a bug and shows its traceback."""


def of(error: Exception) -> Exit:
    """Return the exit code for an error of `REPORTED`."""
    return next(code for kind, code in _BY_ERROR if isinstance(error, kind))


def table() -> list[tuple[str, str]]:
    """Return the codes with their meanings, for help and documentation."""
    return [(str(code.value), meaning) for code, meaning in MEANINGS.items()]
