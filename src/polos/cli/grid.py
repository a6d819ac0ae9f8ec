"""A table of one line a row: quick for long journals, cut to a terminal, whole in a pipe."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

GAP = 2
FLEXIBLE_MIN = 8


class Grid:
    """Rows of cells below headings; where they are too wide the flexible columns shrink."""

    def __init__(self, *headings: str, flexible: set[str], right: set[str]) -> None:
        self._headings = headings
        self._flexible = [place for place, name in enumerate(headings) if name in flexible]
        self._right = {place for place, name in enumerate(headings) if name in right}
        self._rows: list[list[Text]] = [[Text(name, "bold dim") for name in headings]]

    def add_row(self, *cells: Text | str) -> None:
        """Add a row; its cells hold no line breaks."""
        self._rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])

    def plain(self) -> str:
        """Return the whole table as text."""
        widths = self._widths(None)
        return "".join(
            (" " * GAP)
            .join(self._pad(cell.plain, *at) for cell, at in zip(row, widths, strict=True))
            .rstrip()
            + "\n"
            for row in self._rows
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        widths = self._widths(options.max_width)
        for row in self._rows:
            line = Text(no_wrap=True, overflow="ellipsis")
            for cell, (place, width) in zip(row, widths, strict=True):
                part = cell.copy()
                part.truncate(width, overflow="ellipsis")
                missing = width - part.cell_len
                if place in self._right:
                    part.pad_left(missing)
                elif place < len(widths) - 1:
                    part.pad_right(missing)
                line.append_text(part).append(" " * GAP if place < len(widths) - 1 else "")
            yield line

    def _pad(self, cell: str, place: int, width: int) -> str:
        spaces = " " * (width - cell_len(cell))
        return spaces + cell if place in self._right else cell + spaces

    def _widths(self, most: int | None) -> list[tuple[int, int]]:
        widths = [max(cell.cell_len for cell in column) for column in zip(*self._rows, strict=True)]
        excess = 0 if most is None else sum(widths) + GAP * (len(widths) - 1) - most
        while excess > 0:
            widest = max(self._flexible, key=lambda place: widths[place])
            if widths[widest] <= FLEXIBLE_MIN:
                break
            widths[widest] -= 1
            excess -= 1
        return list(enumerate(widths))
