"""Patching the state of an execution that waits: from what people give to what is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from pydantic_core import from_json, to_json

from polos.client import views
from polos.client.node import Node
from polos.core import delta, marks
from polos.core.amending import Amendment, check_amendable
from polos.core.delta import Fields
from polos.core.model import Execution, StateEntry
from polos.core.sealed import references
from polos.core.secret import holds
from polos.errors import BlobNotFoundError, ConflictError, InvalidStateError, UsageError
from polos.workflow.evolving import field_named, upgraded
from polos.workflow.runnable import label
from polos.workflow.state import StateSchema

TRIES_MAX = 20
"""How often a patch without `if_version` is made anew because the state changed meanwhile."""


class Patching:
    """The part of a client that changes the state of executions."""

    async def node(self) -> Node:
        """Return what runs behind this client."""
        raise NotImplementedError

    async def patch_state(
        self,
        execution_id: str,
        patch: Mapping[str, Any],
        if_version: int | None = None,
        *,
        who: str | None = None,
        why: str | None = None,
    ) -> dict[str, Any]:
        """Replace top-level fields of the state of an execution that waits or is queued.

        The patch is validated by the workflow's state schema if this process has it, else when the
        execution goes on. It is recorded like a step, with `who` and `why`, and durable when this
        returns; the code sees it when it goes on. An execution that was parked because its state
        could not be loaded goes on by itself. Returns the execution as `get_execution` shows it.

        `if_version` is the `state_version` that the patch was made for. Raises `ConflictError` if
        the state has another one, if the execution is running or has ended, and
        `InvalidStateError` if the patched state does not fit; then nothing is written.
        """
        given = _checked(patch)
        origin = json.dumps({"who": label("who", who), "why": label("why", why)})
        if if_version is not None and type(if_version) is not int:
            raise UsageError(f"if_version={if_version!r}: expected a state_version, an int")
        node = await self.node()
        for attempt in range(TRIES_MAX):
            record = await node.engine.require(execution_id)
            entries = await node.engine.latest_states(record)
            version = entries[-1].version if entries else -1
            expected = version if if_version is None else if_version
            check_amendable(record, expected, version)
            amendment = _amendment(node, record, entries, given)
            await _demand_blobs(node, amendment)
            amendment.entry.at = node.engine.clock.now()
            amendment.entry.origin = origin
            try:
                await node.engine.states.amend(record, amendment)
            except ConflictError:
                moved = await node.engine.states.last_version(record) != version
                if if_version is not None or not moved or attempt == TRIES_MAX - 1:
                    raise
                continue
            break
        node.engine.ring()
        record = await node.engine.require(execution_id)
        return views.execution(record, await node.engine.latest_states(record))


async def _demand_blobs(node: Node, amendment: Amendment) -> None:
    for hash in references(amendment.change):
        if await node.engine.store.blob_size(hash) is None:
            raise BlobNotFoundError(hash)


def _checked(patch: Any) -> dict[str, Any]:
    given = cast("Mapping[Any, Any]", patch)
    if not isinstance(patch, Mapping) or not all(isinstance(name, str) for name in given):
        raise UsageError(f"patch={patch!r}: expected a dict of new values by field name")
    if not given:
        raise UsageError("patch={}: expected at least one field with its new value")
    return dict(given)


def _amendment(
    node: Node, record: Execution, entries: list[StateEntry], patch: dict[str, Any]
) -> Amendment:
    workflow = node.registry.get(record.workflow_id)
    schema = None if workflow is None else workflow.schema
    recorded = delta.replay(entry.jump or entry.body for entry in entries)
    stored = entries[-1].schema_version if entries else None
    new = _encoded(patch)
    node.codec.demand_secrecy([name for name, text in new.items() if holds(text.decode())])
    if schema is None:
        if not entries:
            raise ConflictError(
                f"execution {record.id!r} of workflow {record.workflow_id!r} has no state to patch"
            )
        before, after = recorded, recorded | new
    else:
        node.codec.demand_secrecy(schema.secrets)
        if not entries:
            recorded, stored = schema.recorded()[1], schema.recorded_version
        before, after = _patched(schema, recorded, stored, new)
        stored_before, stored = stored, schema.recorded_version
        if stored_before != stored:
            recorded = {}
    changed = {name: text for name, text in after.items() if before.get(name) != text}
    ops = [["set", [name], from_json(text)] for name, text in changed.items()]
    body = delta.diff(recorded, after) if recorded and entries else None
    version = entries[-1].version if entries else -1
    entry = StateEntry(
        max(version, 0) + 1, None, 0, body or delta.document(after), schema_version=stored
    )
    return Amendment(version, entry, to_json(ops, inf_nan_mode="constants").decode())


def _encoded(patch: dict[str, Any]) -> Fields:
    try:
        return {
            name: to_json(
                value,
                inf_nan_mode="constants",
                bytes_mode="base64",
                round_trip=True,  # with its secrets
                fallback=marks.marked,
            )
            for name, value in patch.items()
        }
    except ValueError as error:
        raise InvalidStateError(f"the patch has a value that JSON cannot hold: {error}") from error


def _patched(
    schema: StateSchema, recorded: Fields, version: int | None, patch: Fields
) -> tuple[Fields, Fields]:
    """Return the record that the code would load ({} if it could not), and the patched one."""
    new = {field_named(schema.cls, name): text for name, text in patch.items()}
    before: Fields = {}
    try:
        before = schema.upgraded(recorded, version)
        schema.check(before)
    except InvalidStateError:
        before, after = {}, _mended(schema, recorded, version, new)
    else:
        after = schema.of_data(from_json(delta.encoded(before | new)))
    schema.check_size(after)
    return before, after


def _mended(schema: StateSchema, recorded: Fields, version: int | None, new: Fields) -> Fields:
    """Patch a state that does not load: what its migrations make of it, or what is stored.

    A patch with all fields needs neither.
    """
    try:
        data = upgraded(schema.cls, from_json(delta.encoded(recorded)), version or 1)
        return schema.of_data(data | from_json(delta.encoded(new)))
    except InvalidStateError:
        if not schema.is_older(version):
            raise
        if new.keys() >= schema.cls.model_fields.keys():
            return schema.of_data(from_json(delta.encoded(new)))
        return schema.upgraded(recorded | new, version)
