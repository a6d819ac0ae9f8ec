"""`python -m bench NAME`: JSON lines on stdout, everything for people on stderr."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from bench import disk
from bench.measures import NAMES
from bench.report import Measure, table

Line = dict[str, Any]


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=[*NAMES, "all"], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--runs", type=int, default=5, help="runs whose median counts (5)")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work at all?")
    parser.add_argument("--dir", help="folder on a real disk for the databases (./.bench)")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio's loop")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(given)


def say(text: str) -> None:
    """Tell people."""
    print(text, file=sys.stderr, flush=True)


def describe(folder: Path, mount: disk.Mount) -> None:
    """Say what the numbers are numbers of."""
    say(
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"SQLite {apsw.sqlitelibversion()}; databases in {folder} "
        f"({mount.kind} on {mount.device}), fdatasync {disk.fdatasync_ms(folder):.2f} ms"
    )


def run_one(options: argparse.Namespace, folder: Path) -> list[Line]:
    """Run one bench in this process."""
    # Here, so that a bench loads what it measures and nothing else.
    session = importlib.import_module("bench.session")
    bench = importlib.import_module(f"bench.measures.{options.name}")
    factory = importlib.import_module("uvloop").new_event_loop if options.uvloop else None
    lines: list[Line] = []

    def emit(measure: Measure) -> None:
        print(measure.line(), flush=True)
        lines.append(json.loads(measure.line()))

    own = Path(tempfile.mkdtemp(prefix=f"{options.name}-", dir=folder))
    try:
        bench.measure(
            session.Session(options.name, options.runs, options.quick, own, emit, factory)
        )
    finally:
        shutil.rmtree(own)
    return lines


def run_all(options: argparse.Namespace, folder: Path) -> tuple[list[Line], list[str]]:
    """Run every bench in a process of its own; returns the lines and the benches that failed."""
    lines: list[Line] = []
    failed: list[str] = []
    flags = [flag for flag in ("quick", "uvloop") if getattr(options, flag)]
    for name in NAMES:
        command = [sys.executable, "-m", "bench", name, "--bare", "--dir", str(folder)]
        command += ["--runs", str(options.runs), *(f"--{flag}" for flag in flags)]
        say(f"{name} …")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                print(text, end="", flush=True)
                lines.append(json.loads(text))
        if process.returncode:
            failed.append(name)
    return lines, failed


def main(given: Sequence[str] | None = None) -> int:
    """Run; 0 if all targets that were judged are met, 1 if not, 2 if nothing can be measured."""
    options = arguments(given)
    folder = disk.make_folder(options.dir)
    mount = disk.mount_of(folder)
    if mount.in_memory and not options.quick:
        say(f"{folder} is {mount.kind}, which is memory: name a folder on a disk with --dir")
        return 2
    if not options.bare:
        describe(folder, mount)
        if mount.in_memory:
            say("this is memory, not a disk: the numbers mean nothing")
    failed: list[str] = []
    if options.name == "all":
        lines, failed = run_all(options, folder)
    else:
        lines = run_one(options, folder)
    if not options.bare:
        say(table(lines))
    for name in failed:
        say(f"{name} FAILED, see above")
    # A bare run only measures; who started it judges.
    missed = not options.bare and any(line["ok"] is False for line in lines)
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
