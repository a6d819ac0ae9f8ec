"""The rules of keyed state: who may start, set, retry; what the first and the others begin with."""

from __future__ import annotations

from polos.core.keyed import Keyed, KeyedState
from polos.core.model import Execution, Start, StateEntry
from polos.errors import ConflictError

Key = tuple[str, str]
"""A workflow's id, and the key."""


def _spelled(key: Key) -> str:
    return f"key {key[1]!r} of workflow {key[0]!r}"


def behind(prefix: str) -> str | None:
    """Return the first text, by its bytes, behind all with a prefix; None if there is none."""
    for place in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[place]) + 1
        if 0xD800 <= code <= 0xDFFF:
            code = 0xE000
        if code <= 0x10FFFF:
            return prefix[:place] + chr(code)
    return None


def why_not(
    key: Key, keyed: Keyed, state: KeyedState | None, *, first: bool
) -> ConflictError | None:
    """Return why an execution cannot be started with an initial state; None: it can."""
    if not keyed.given or (first and state is None):
        return None
    why = "has state already" if first else "is in use by another execution"
    if state is not None:
        why = f"has state already (version {state.version})"
    return ConflictError(
        f"initial_state was given, but {_spelled(key)} {why}; leave initial_state out, or change "
        "the state with client.set_state"
    )


def first_entry(state: KeyedState) -> StateEntry:
    """Return the entry that an execution begins with whose key has state."""
    version = state.schema_version
    return StateEntry(0, None, state.updated_at or 0, state.state, schema_version=version)


def place(start: Start, state: KeyedState | None, *, first: bool) -> None:
    """Let a start begin with the state of its key, or wait until those before it have ended."""
    start.is_behind = not first  # it may have been placed before, in a batch that failed
    if not first:
        start.attempt, start.loaded = 0, None
    elif state is not None:
        start.state, start.schema_version = state.state, state.schema_version
        start.loaded = None


def check_settable(
    key: Key, state: KeyedState | None, holder: str | None, if_version: int | None
) -> None:
    """Raise `ConflictError` if the state of a key cannot be set or removed now."""
    if holder is not None:
        raise ConflictError(
            f"{_spelled(key)} is held by execution {holder}, which would overwrite its state when "
            "it ends; wait for that, or use patch_state on the execution"
        )
    version = 0 if state is None else state.version
    if if_version is not None and if_version != version:
        raise ConflictError(
            f"the state of {_spelled(key)} has version {version}, not {if_version}: it was changed "
            "meanwhile; read it again with get_state"
        )


def check_free(key: Key, state: KeyedState | None, holder: str | None) -> None:
    """Raise `ConflictError` if an execution from elsewhere cannot go on with a key."""
    if holder is None and state is None:
        return
    why = "has state" if holder is None else f"is held by execution {holder}"
    raise ConflictError(
        f"{_spelled(key)} {why} here, and the execution in the file has its own; remove it with "
        "client.delete_state, or look at the file with polos import --show"
    )


def check_again(record: Execution, last: str | None, holder: str | None, verb: str) -> None:
    """Raise `ConflictError` if an ended execution can no longer go on with the state of its key.

    `verb` says what it would be: "retried" or "reset".
    """
    if holder is None and last == record.id:
        return
    key = (record.workflow_id, record.state_key or "")
    why = (
        f"is held by execution {holder}"
        if holder is not None
        else f"was changed since it {record.status}"
    )
    raise ConflictError(
        f"execution {record.id!r} cannot be {verb}: the state of {_spelled(key)} {why}, and what "
        "it would leave builds on what was before; start it anew"
    )


def owner(key: Key) -> tuple[str, str]:
    """Return what stands for a key, as (root, id), among those that refer to blobs."""
    return f"state_key:{key[0]}", key[1]


def leave_to_claim(start: Start, *, is_clear: bool) -> None:
    """Let a start whose state is not at hand as code has it be read by whoever claims it."""
    if not is_clear:
        start.attempt = 0
