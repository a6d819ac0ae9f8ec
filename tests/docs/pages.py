"""Finds the Python blocks of a Markdown page, and lays them out as one module.

A block keeps its line numbers: line 40 of the module is line 40 of the page, so a traceback
leads to the page.
"""

import re
from dataclasses import dataclass
from textwrap import dedent

FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)")
SKIP = re.compile(r"^\s*<!--\s*skip:(?P<reason>.*?)-->\s*$")


@dataclass(frozen=True)
class Block:
    """The lines between two fences; `line` is the number of the first one."""

    line: int
    text: str
    skip: str | None

    @property
    def end(self) -> int:
        return self.line + self.text.count("\n")


def python_blocks(page: str) -> list[Block]:
    """Return the blocks marked `python`, in order; `skip` is the reason of a skipped one."""
    blocks: list[Block] = []
    lines = page.splitlines()
    skip: str | None = None
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if opening := FENCE.match(line):
            start = number
            while number < len(lines) and not closes(lines[number], opening["fence"]):
                number += 1
            if opening["language"] == "python":
                text = dedent("\n".join(lines[start:number]))
                blocks.append(Block(start + 1, text, skip))
            number += 1
            skip = None
        elif marker := SKIP.match(line):
            skip = marker["reason"].strip()
        elif line.strip():
            skip = None
    return blocks


def closes(line: str, fence: str) -> bool:
    text = line.strip()
    return len(text) >= len(fence) and set(text) == {fence[0]}


def as_module(blocks: list[Block]) -> str:
    """Return the source of a module with every block at its line of the page."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.text.split("\n")
    return "\n".join(lines) + "\n"
