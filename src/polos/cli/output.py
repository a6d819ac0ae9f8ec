"""Where the command writes: tables for people, plain text for pipes, JSON for programs."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from polos.cli import text
from polos.cli.grid import Grid

UNBOUNDED = 100_000
"""Columns of what is not a terminal: nothing is wrapped or cut to its width."""
SHORT_BELOW = 112
"""Columns of a terminal below which ids are shortened."""


class Output:
    """Standard output, as a terminal or a pipe."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.terminal = self.console.is_terminal
        if not self.terminal:
            self.console = Console(
                width=UNBOUNDED, highlight=False, markup=False, emoji=False, color_system=None
            )
        self.narrow = self.terminal and self.console.width < SHORT_BELOW

    def show(self, what: RenderableType, *, whole: bool = False) -> None:
        """Print something for people; `whole`: the terminal breaks its lines, not between words."""
        if self.terminal:
            self.console.print(what, soft_wrap=whole)
            return
        if isinstance(what, Grid):
            self._write(what.plain())
            return
        with self.console.capture() as captured:
            self.console.print(what)
        lines = captured.get().splitlines()
        self._write("".join(f"{line.rstrip()}\n" for line in lines))

    def document(self, value: Any) -> None:
        """Print one JSON document on one line."""
        self._write(text.document(value) + "\n")

    def write(self, content: str) -> None:
        """Print text as it is: no line is ended."""
        self._write(content)

    def time(self, iso: str | None, now: datetime) -> str:
        """Return a moment: how long ago on a terminal, the moment itself elsewhere."""
        then = text.moment(iso)
        if then is None:
            return ""
        return text.ago(then, now) if self.terminal else f"{then:%Y-%m-%dT%H:%M:%SZ}"

    def _write(self, content: str) -> None:
        sys.stdout.write(content)
        sys.stdout.flush()


def abandon() -> None:
    """Send the rest of standard output nowhere: its reader went away, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(message: str) -> None:
    """Write a line for people to standard error, which leaves standard output to the data."""
    _stderr().print(Text(text.clean(message, lines=True), "dim"))


def complain(message: str) -> None:
    """Write an error to standard error."""
    _stderr().print(
        Text.assemble(("polos: ", "bold red"), text.clean(message, lines=True)), soft_wrap=True
    )


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, markup=False, emoji=False)
