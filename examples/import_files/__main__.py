"""The command: starts the import of a folder, or goes on with it, and shows how far it is."""

import argparse
import asyncio
import sys
from pathlib import Path

from examples.import_files.display import Bar, print_report
from examples.import_files.workflow import Import, Report, import_files, settings
from polos import ExecutionHandle, PolosClient, PolosError, WorkflowTimeoutError

PROJECT = Path(__file__).resolve().parents[2]


async def run(folder: str, url: str | None, bar: Bar) -> Report:
    async with PolosClient(url) as client:
        handle = await resume_or_start(client, folder)
        try:
            while True:
                bar.show(await handle.state())
                try:
                    return await handle.result(timeout=0.1)
                except WorkflowTimeoutError:  # only this wait is over, not the import
                    continue
        finally:
            bar.show(await handle.state())


async def resume_or_start(client: PolosClient, folder: str) -> ExecutionHandle:
    """Go on with the newest import of the folder unless it has ended; else start one."""
    found = await client.list_executions(workflow_id=import_files.id, session_id=folder, limit=1)
    if found and found[0]["status"] in {"queued", "running", "waiting"}:
        latest = found[0]
        state = latest["state"]
        print(f"resuming execution {latest['id']} at {state['done']}/{state['total']}", flush=True)
        if latest["blocked_reason"]:  # it was killed too often; now somebody asks for it again
            return await client.retry_execution(latest["id"])
        return client.get_handle(latest["id"])
    # Of two processes that start at the same moment one starts it, and the other joins in.
    after = found[0]["id"] if found else "none"
    handle = await import_files.invoke(
        client,
        Import(folder=folder),
        session_id=folder,
        idempotency_key=f"{folder} after {after}",
    )
    print(f"importing {folder} as execution {handle.id}", flush=True)
    return handle


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.import_files",
        description="Count the lines and words of every file in a folder, and hash it. Stop it as "
        "you like and run the same command again: it goes on where it was.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=PROJECT)
    parser.add_argument("--url", help="the store (default: POLOS_URL, else ./.polos/polos.db)")
    parser.add_argument(
        "--slow", type=float, default=0.0, metavar="SECONDS", help="take so long for each file"
    )
    options = parser.parse_args()
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    settings.seconds_per_file = options.slow
    bar = Bar()
    try:
        with bar:
            report = asyncio.run(run(str(options.folder.resolve()), options.url, bar))
    except KeyboardInterrupt:
        print(f"stopped at {bar.done}/{bar.total}; run the same command again to go on")
        return 130
    except PolosError as error:
        print(error, file=sys.stderr)
        return 1
    print_report(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
