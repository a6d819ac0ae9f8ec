"""Commands on their way into a database: sealed when their batch is formed, then called back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from polos.core.model import Change, Publish, Start

Command = Change | Start | Publish
Result = BaseException | str | None
"""What a command gets back: an error, an id or status, or nothing to say."""

Gate = Callable[[str], Awaitable[None] | None]
"""Called with "begin" ahead of every transaction, "before" and "after" its commit; for tests that
crash or meddle there. It may raise `Crashed`. What it returns is awaited where the database is
reached by awaiting."""


class Crashed(BaseException):
    """The process is taken as dead from here: nobody hears of this transaction or a later one."""


def seal(command: Command) -> None:
    """Say that the batch of the command is formed: nothing is added to it any more."""
    if isinstance(command, Change):
        command.seal()


def call_back(command: Command, result: Result) -> None:
    """Say what became of the command."""
    if isinstance(command, Change):
        command.done(result)
    elif isinstance(command, Publish):
        if command.done is not None:
            command.done(result if isinstance(result, BaseException) else None)
    elif command.done is not None:
        command.done(result if result is not None else command.id)
