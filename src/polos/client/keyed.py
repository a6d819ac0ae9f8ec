"""The state of keys, as clients read and set it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json

from polos.client.node import Node
from polos.client.views import moment
from polos.core import delta, secret
from polos.core.keyed import KeyedState as Record
from polos.core.model import StateEntry
from polos.errors import UsageError, WorkflowNotRegisteredError
from polos.workflow.keying import key_text
from polos.workflow.runnable import Workflow, label
from polos.workflow.state import StateSchema

LIST_MAX = 1_000


class KeyedState(dict[str, Any]):
    """The state of a key as plain data, secrets masked, with what is known about it.

    `version` counts its changes, for `if_version`; `updated_at` is ISO 8601 text in UTC;
    `execution_id` is the execution that had the key last, None if people set the state since.
    """

    def __init__(self, state: Mapping[str, Any], record: Record) -> None:
        super().__init__(state)
        self.workflow_id = record.workflow_id
        self.key = record.key
        self.version = record.version
        self.updated_at = moment(record.updated_at)
        self.execution_id = record.execution_id


class KeyedStates:
    """The part of a client that reads and sets state by key (`@workflow(state_key=...)`)."""

    async def node(self) -> Node:
        """Return what runs behind this client."""
        raise NotImplementedError

    async def get_state(self, workflow: str | Workflow[Any], key: Any) -> KeyedState | None:
        """Return the state of a key as the last execution left it, or as it was set; else None.

        A dict with attributes: `version`, `updated_at`, `execution_id`. What an execution that has
        not ended makes of the state is not in it; see `get_execution`.
        """
        node = await self.node()
        workflow_id, schema = _of(node, workflow)
        record = await node.engine.store.keyed_state(workflow_id, key_text(key))
        return None if record is None else _shown(record, schema)

    async def set_state(
        self,
        workflow: str | Workflow[Any],
        key: Any,
        state: BaseModel | Mapping[str, Any],
        if_version: int | None = None,
    ) -> KeyedState:
        """Set the whole state of a key; the next execution with it begins with that.

        `state` is validated by the workflow's state schema, which fills what is left out. With
        `if_version` the state must have that version, 0 for a key without state. Raises
        `ConflictError` if it has another, or while an execution with the key has not ended, and
        `InvalidStateError` if the state does not fit; then nothing is written.
        """
        node = await self.node()
        workflow_id, schema = _of(node, workflow)
        if schema is None:
            raise WorkflowNotRegisteredError(
                f"workflow {workflow_id!r} is not registered with a state_schema in this process, "
                "so the state cannot be checked; import the module that defines it"
            )
        given: Any = state
        if not isinstance(given, BaseModel | Mapping):
            raise UsageError(
                f"state={given!r}: expected a {schema.cls.__name__}, or a dict of its fields"
            )
        node.codec.demand_secrecy(schema.secrets)
        fields = schema.recorded(state)[1]
        schema.check_size(fields)
        entry = StateEntry(
            0,
            None,
            node.engine.clock.now(),
            delta.document(fields),
            schema_version=schema.recorded_version,
        )
        text = key_text(key)
        version = _version(if_version)
        await node.engine.store.write_keyed_state(workflow_id, text, entry, version)
        record = await node.engine.store.keyed_state(workflow_id, text)
        assert record is not None
        return _shown(record, schema)

    async def delete_state(
        self, workflow: str | Workflow[Any], key: Any, if_version: int | None = None
    ) -> bool:
        """Remove the state of a key; False if it has none.

        Raises `ConflictError` like `set_state`.
        """
        node = await self.node()
        workflow_id, _ = _of(node, workflow)
        version = _version(if_version)
        before = await node.engine.store.write_keyed_state(
            workflow_id, key_text(key), None, version
        )
        return before is not None

    async def list_state_keys(
        self,
        workflow: str | Workflow[Any],
        prefix: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[str]:
        """Return keys that have state, in the order of their bytes, at most `limit` (1 to 1,000).

        `prefix` is what they begin with; `after` a key pages on.
        """
        if type(limit) is not int or not 1 <= limit <= LIST_MAX:
            raise UsageError(f"limit={limit!r}: expected an int from 1 to {LIST_MAX}")
        node = await self.node()
        workflow_id, _ = _of(node, workflow)
        return await node.engine.store.state_keys(
            workflow_id, label("prefix", prefix) or "", label("after", after) or "", limit
        )


def _of(node: Node, workflow: Any) -> tuple[str, StateSchema | None]:
    found: Any = workflow
    if not isinstance(workflow, Workflow):
        if not isinstance(workflow, str) or label("workflow", workflow) is None:
            raise UsageError(f"workflow={workflow!r}: expected a workflow or its id")
        found = node.registry.get(workflow)
        if found is None:
            return workflow, None
    if found.keying is None:
        raise UsageError(
            f"workflow {found.id!r} has no state by key; give it a state_key, or read the state of "
            "an execution with get_execution"
        )
    return found.id, found.schema


def _version(if_version: Any) -> int | None:
    if if_version is not None and (type(if_version) is not int or if_version < 0):
        raise UsageError(f"if_version={if_version!r}: expected a version, an int of 0 or more")
    return if_version


def _shown(record: Record, schema: StateSchema | None) -> KeyedState:
    fields = delta.split(record.state)
    if schema is not None:
        fields = schema.upgraded(fields, record.schema_version)
    return KeyedState(secret.mask(from_json(delta.encoded(fields))), record)
