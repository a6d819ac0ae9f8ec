"""Where the databases of a bench lie, and whether that is a disk at all."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


@dataclass(frozen=True)
class Mount:
    """The file system that holds a folder."""

    point: str
    kind: str
    device: str

    @property
    def in_memory(self) -> bool:
        """Say whether nothing written there reaches a disk."""
        return self.kind in IN_MEMORY


def mount_of(folder: Path) -> Mount:
    """Return the file system of an existing folder, as Linux tells it."""
    device = os.stat(folder).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    # The last one wins: a mount covers what was mounted there before.
    for line in reversed(lines):
        left, _, right = line.partition(" - ")
        fields, kind, source = left.split(), right.split()[0], right.split()[1]
        if fields[2] == number:
            return Mount(fields[4], kind, source)
    return Mount("?", "unknown", number)


def fdatasync_ms(folder: Path, count: int = 50) -> float:
    """Return the median time of appending 4 KiB and waiting until it is on the disk."""
    path = folder / "fdatasync"
    page = bytes(4096)
    took: list[float] = []
    with path.open("wb", buffering=0) as file:
        for _ in range(count):
            begun = time.perf_counter()
            file.write(page)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    path.unlink()
    return statistics.median(took) * 1e3


def make_folder(chosen: str | None) -> Path:
    """Return the folder for the databases, created; `./.bench` keeps itself out of git."""
    folder = Path(chosen or ".bench").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if chosen is None and not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
    return folder
