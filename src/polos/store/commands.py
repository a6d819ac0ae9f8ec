"""Commands on their way into a database: sealed when their batch is formed, then called back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

from polos.core.content import Content
from polos.core.model import Change, Publish, Start
from polos.store.lining import Lining

Command = Change | Start | Publish
Result = BaseException | str | None
"""What a command gets back: an error, an id or status, or nothing to say."""

Gate = Callable[[str], Awaitable[None] | None]
"""Called with "begin" ahead of every transaction, "before" and "after" its commit; for tests that
crash or meddle there. It may raise `Crashed`. What it returns is awaited where the database is
reached by awaiting."""


class Apart(NamedTuple):
    """What an execution refers to: blobs by hash, and the contents that may be new."""

    root_id: str
    execution_id: str
    refs: Sequence[str]
    contents: Sequence[Content]
    at: int


class Crashed(BaseException):
    """The process is taken as dead from here: nobody hears of this transaction or a later one."""


def seal(command: Command, lining: Lining) -> Command:
    """Say that the batch of the command is formed; returns what is written of it."""
    if isinstance(command, Change):
        command.seal()
        # What has work is formed by it, inside its transaction: see `settle`.
        return command if command.work is not None else lining.change(command)
    return lining.start(command) if isinstance(command, Start) else command


def call_back(command: Command, result: Result) -> None:
    """Say what became of the command, or of the one that was written in its place."""
    if isinstance(command, Change):
        if command.original is not None:
            settle(command.original, command)
            command = command.original
        command.done(result)
        return
    if isinstance(command, Start) and command.original is not None:
        settle(command.original, command)
        command = command.original
    if isinstance(command, Publish):
        if command.done is not None:
            command.done(result if isinstance(result, BaseException) else None)
    elif command.done is not None:
        command.done(result if result is not None else command.id)


def settle(command: Command, written: Command) -> None:
    """Tell a command what the store decided about what was written in its place."""
    if isinstance(command, Start) and isinstance(written, Start):
        _settle_start(command, written)
    elif isinstance(command, Change) and isinstance(written, Change):
        for start, sealed in zip(command.starts, written.starts, strict=True):
            _settle_start(start, sealed)


def _settle_start(start: Start, written: Start) -> None:
    start.attempt, start.is_behind = written.attempt, written.is_behind
    if written.loaded is None and start.loaded is not None:  # its key had state
        start.state, start.schema_version, start.loaded = (
            written.state,
            written.schema_version,
            None,
        )


def apart(commands: Iterable[Command]) -> list[Apart]:
    """Return what the changes and starts refer to, of those that refer to blobs."""
    found: list[Apart] = []
    for command in commands:
        if not isinstance(command, Publish) and command.refs:
            if isinstance(command, Start):
                id, at = command.id, command.created_at
            else:
                id, at = command.execution_id, command.at
            found.append(Apart(command.root_id, id, command.refs, command.contents, at))
        if isinstance(command, Change) and command.starts:
            found += apart(command.starts)
    return found
