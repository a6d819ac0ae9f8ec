"""A progress bar and a table: with rich if it is installed, in plain text if not."""

import sys
from typing import Any

from examples.import_files.workflow import Report, Totals

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    from rich.table import Table
except ModuleNotFoundError:
    Console = None

HEADINGS = ["extension", "files", "lines", "words", "bytes"]
FAILED_SHOWN = 20


class Bar:
    """Shows the state of a running import; `done` and `total` are as last seen."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self._rich = None
        if Console is not None and sys.stdout.isatty():
            columns = BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn()
            self._rich = Progress(*columns, transient=True)
            self._task = self._rich.add_task("", total=None)

    def __enter__(self) -> None:
        if self._rich is not None:
            self._rich.start()

    def __exit__(self, *error: object) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif sys.stdout.isatty():
            print()

    def show(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self.done, self.total = state["done"], state["total"]
        if self._rich is not None:
            self._rich.update(self._task, completed=self.done, total=self.total or None)
        elif sys.stdout.isatty():
            print(f"\r{self.done}/{self.total} files", end="", flush=True)


def print_report(report: Report) -> None:
    """Print the totals by extension, largest first, and what could not be read."""
    by_lines = sorted(report.by_extension.items(), key=lambda item: -item[1].lines)
    rows = [[extension, *_numbers(totals)] for extension, totals in by_lines]
    everything = Totals()
    for totals in report.by_extension.values():
        for name, value in totals:
            setattr(everything, name, getattr(everything, name) + value)
    last = ["all", *_numbers(everything)]
    if Console is None:
        print(_plain_table([HEADINGS, *rows, last]))
    else:
        Console().print(_rich_table(rows, last))
    print(f"SHA-256 of all files: {report.sha256}")
    if report.failed:
        print(f"not read: {len(report.failed)}")
        for name, error in list(report.failed.items())[:FAILED_SHOWN]:
            print(f"  {name!r}: {error}")


def _numbers(totals: Totals) -> list[str]:
    return [f"{value:,}" for _, value in totals]


def _plain_table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
        for first, *others in rows
    )


def _rich_table(rows: list[list[str]], last: list[str]) -> "Table":
    table = Table(show_footer=True)
    for heading, total in zip(HEADINGS, last, strict=True):
        justify = "left" if heading == "extension" else "right"
        table.add_column(heading, justify=justify, footer=total)
    for row in rows:
        table.add_row(*row)
    return table
