"""Where the command writes: tables for people, plain text for pipes, JSON for programs."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from polos.cli import text

UNBOUNDED = 100_000
"""Columns of what is not a terminal: nothing is wrapped or cut there."""


class Output:
    """Standard output, as a terminal or a pipe."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.console = Console(highlight=False, markup=False, emoji=False)
        if not self.console.is_terminal:
            self.console = Console(
                width=UNBOUNDED, highlight=False, markup=False, emoji=False, color_system=None
            )

    @property
    def terminal(self) -> bool:
        """Say whether somebody looks at it."""
        return self.console.is_terminal

    @property
    def narrow(self) -> bool:
        """Say whether ids must be shortened."""
        return self.terminal and self.console.width < 112

    def show(self, what: RenderableType) -> None:
        """Print something for people."""
        if self.terminal:
            self.console.print(what)
            return
        with self.console.capture() as captured:
            self.console.print(what)
        lines = captured.get().splitlines()
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines))

    def document(self, value: Any) -> None:
        """Print one JSON document on one line."""
        sys.stdout.write(text.document(value) + "\n")
        sys.stdout.flush()

    def time(self, iso: str | None, now: datetime) -> Text:
        """Return a moment: how long ago on a terminal, the moment itself elsewhere."""
        then = text.moment(iso)
        if then is None:
            return Text("")
        return Text(text.ago(then, now) if self.terminal else f"{then:%Y-%m-%dT%H:%M:%SZ}")


def complain(message: str) -> None:
    """Write a line to standard error."""
    Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        Text.assemble(("polos: ", "bold red"), text.clean(message, lines=True))
    )
