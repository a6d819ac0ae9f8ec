"""What whoever waits for a database that is away, or says nothing, is told in the end."""

from __future__ import annotations

from polos.core.model import Publish, Start
from polos.errors import StoreUnavailableError


def away(path: str, seconds: float, command: Publish | Start) -> StoreUnavailableError:
    """Return what its caller is told when the database was away for too long."""
    if isinstance(command, Start):
        what = f"{command.workflow_id!r} was started; it"
        remedy = "start it again with the same idempotency_key, or list executions"
    else:
        what, remedy = "events were published; they", "read the topic before publishing them again"
    return StoreUnavailableError(
        f"{path}: the database was away for {seconds:g} seconds while {what} may have been stored: "
        f"{remedy}"
    )


def closed(path: str) -> StoreUnavailableError:
    """Return what they are told whose commands were on their way when the store was closed."""
    return StoreUnavailableError(
        f"{path}: the client was closed while the database was away or gave no answer; what was on "
        "its way may have been stored, and executions go on from their last commit"
    )
