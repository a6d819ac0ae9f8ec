"""Run it with `python -m examples.plain`; kill it, and run it again.

A plain `def` workflow, in a script without an event loop: it reads every file of a folder, each in
a step of its own, and keeps count in its state.

```bash
python -m examples.plain docs/how-to --slow 0.1
```
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from typing import Any

from polos import PolosClient, WorkflowContext, WorkflowState, workflow


class Read(WorkflowState):
    files: int = 0
    size: int = 0


def names_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir() if path.is_file())


def read(folder: str, name: str, seconds: float) -> tuple[int, str]:
    """Return size and checksum of a file."""
    time.sleep(seconds)  # noqa: TID251 - a reader that blocks, as this one may
    content = (Path(folder) / name).read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()


@workflow(id="plain.checksums", state_schema=Read)
def checksums(ctx: WorkflowContext, what: dict[str, Any]) -> str:
    """Return one checksum over the checksums of all files of a folder."""
    step: Any = ctx.step  # blocks, where an `async def` workflow awaits
    whole = hashlib.sha256()
    for name in step.run("list", names_in, what["folder"]):
        size, digest = step.run(f"read {name}", read, what["folder"], name, what["slow"])
        ctx.state.files += 1
        ctx.state.size += size
        whole.update(digest.encode())
    return f"{ctx.state.files} files, {ctx.state.size} bytes, {whole.hexdigest()[:16]}"


def main() -> None:
    """Read a folder, or go on where an earlier run of this program was killed."""
    parser = argparse.ArgumentParser(prog="python -m examples.plain")
    parser.add_argument("folder", nargs="?", default="docs/how-to")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds for each file")
    parser.add_argument("--url", help="where it is stored; else ./.polos/polos.db")
    given = parser.parse_args()
    what = {"folder": given.folder, "slow": given.slow}
    key = f"{given.folder} {names_in(given.folder)}"
    print(checksums.run_sync(PolosClient(given.url), what, idempotency_key=key))


if __name__ == "__main__":
    main()
