"""What every command works with: the store, the output, the time; and how a command is run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import typer

from polos import PolosClient
from polos.cli import output
from polos.cli.exits import Exit
from polos.cli.opening import opened
from polos.cli.output import Output
from polos.core.clock import Clock, SystemClock
from polos.errors import ExecutionNotFoundError, UsageError

T = TypeVar("T")
ID_LENGTH = 36
END_MIN = 6
PAGE = 100
PAGES_MAX = 10
"""The end of an id is looked for in so many pages of the newest executions."""


@dataclass(slots=True)
class Settings:
    """The options that stand before the command or behind it."""

    url: str | None = None
    json: bool = False


@dataclass(slots=True)
class Desk:
    """An opened store, and where to write."""

    client: PolosClient
    out: Output
    clock: Clock

    def now(self) -> datetime:
        """Return the present moment."""
        return datetime.fromtimestamp(self.clock.now() / 1e6, UTC)

    async def resolve(self, given: str) -> str:
        """Return the id of the execution that `given` names: an id, or the end of one.

        Only the end: ids begin with the time, which those of a minute share.
        """
        if not END_MIN <= len(given) < ID_LENGTH:
            return given
        before: str | None = None
        for _ in range(PAGES_MAX):
            page = await self.client.list_executions(limit=PAGE, before=before)
            found = [each["id"] for each in page if each["id"].endswith(given.lower())]
            if len(found) > 1:
                raise UsageError(f"{given!r} is the end of {' and of '.join(found)}; give more")
            if found:
                return found[0]
            if len(page) < PAGE:
                break
            before = page[-1]["id"]
        raise ExecutionNotFoundError(given)


Job = Callable[[Desk], Awaitable[Exit]]
Opener = Callable[[str | None], AbstractAsyncContextManager[PolosClient]]


def fetch(context: typer.Context, url: str | None, job: Callable[[Desk], Awaitable[T]]) -> T:
    """Open the store to look, and return what the job finds there."""
    outer = context.obj if isinstance(context.obj, Settings) else Settings()

    async def main() -> T:
        clock = SystemClock(asyncio.get_running_loop())
        async with opened(url or outer.url) as client:
            return await job(Desk(client, Output(json=False), clock))

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def run(
    context: typer.Context,
    url: str | None,
    as_json: bool,
    job: Job,
    *,
    write: bool = False,
    opener: Opener | None = None,
) -> None:
    """Open the store, do the job, and end the command with its exit code.

    `opener` opens a store that need not exist.
    """
    outer = context.obj if isinstance(context.obj, Settings) else Settings()
    out = Output(json=as_json or outer.json)

    async def main() -> Exit:
        clock = SystemClock(asyncio.get_running_loop())
        given = url or outer.url
        async with opener(given) if opener else opened(given, write=write) as client:
            return await job(Desk(client, out, clock))

    try:
        code = asyncio.run(main())
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        output.abandon()
        code = Exit.OK
    raise typer.Exit(code)
