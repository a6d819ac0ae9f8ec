"""The durable part: a workflow that reads every file of a folder, a recorded step for each."""

import hashlib
import os
import time
from pathlib import Path
from types import SimpleNamespace

from pydantic import BaseModel

from polos import StateTooLargeError, StepExecutionError, WorkflowContext, WorkflowState, workflow

SKIPPED = {".git", ".venv", "__pycache__", ".polos"}

# Not in the payload: whoever goes on with an import may do it at another pace.
settings = SimpleNamespace(seconds_per_file=0.0)


class Import(BaseModel):
    folder: str


class File(BaseModel):
    lines: int
    words: int
    size: int
    sha256: str


class Totals(BaseModel):
    files: int = 0
    lines: int = 0
    words: int = 0
    size: int = 0

    def add(self, file: File) -> None:
        self.files += 1
        self.lines += file.lines
        self.words += file.words
        self.size += file.size


class Progress(WorkflowState):
    total: int = 0
    done: int = 0
    by_extension: dict[str, Totals] = {}
    failed: dict[str, str] = {}


class Report(BaseModel):
    folder: str
    by_extension: dict[str, Totals]
    failed: dict[str, str]
    sha256: str


@workflow(state_schema=Progress)
async def import_files(ctx: WorkflowContext, job: Import) -> Report:
    # Recorded as well: whoever goes on after a crash works on the same list.
    names = await ctx.step.run("list", list_files, job.folder)
    ctx.state.total = len(names)
    all_files = hashlib.sha256()
    for name in names:
        try:
            # Reading again would not help: a file that is gone or locked stays so.
            file = await ctx.step.run(
                f"read '{name}'", read_file, job.folder, name, non_retryable=(OSError,)
            )
        except StateTooLargeError:
            raise
        except StepExecutionError as error:
            ctx.state.failed[name] = error.error_type or str(error)
        else:
            extension = Path(name).suffix.lower() or "(none)"
            ctx.state.by_extension.setdefault(extension, Totals()).add(file)
            all_files.update(f"{file.sha256}  {name}\n".encode())
        ctx.state.done += 1
    return Report(
        folder=job.folder,
        by_extension=ctx.state.by_extension,
        failed=ctx.state.failed,
        sha256=all_files.hexdigest(),
    )


def list_files(folder: str) -> list[str]:
    """Return the regular files below a folder, relative to it and sorted.

    A folder that cannot be read is listed itself, so that it fails visibly. So is, by a name with
    escapes, a file whose name is not Unicode: JSON could not hold it.
    """
    found: list[Path] = []
    unreadable: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = [each for each in folders if each not in SKIPPED]
        paths = (Path(root, name) for name in names)
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    found += [Path(error.filename) for error in unreadable]
    names = sorted(os.fsencode(path.relative_to(folder)) for path in found)
    return [name.decode(errors="backslashreplace") for name in names]


def read_file(folder: str, name: str) -> File:
    """Count lines, words and bytes of a file as `wc` does, and hash it; runs in a thread."""
    time.sleep(settings.seconds_per_file)  # noqa: TID251 - only to watch it at work
    lines = words = size = 0
    digest = hashlib.sha256()
    inside_word = False
    with Path(folder, name).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
            words += len(chunk.split()) - (inside_word and not chunk[:1].isspace())
            inside_word = not chunk[-1:].isspace()
    return File(lines=lines, words=words, size=size, sha256=digest.hexdigest())
