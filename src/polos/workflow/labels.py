"""What executions are found by: tags given at the start, and declared fields of the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from polos.core import ids, paths
from polos.errors import UsageError, WorkflowDefinitionError
from polos.workflow.state import StateSchema

TAGS_MAX = 50
NAME_MAX = 100
TEXT_MAX = 200
FIELDS_MAX = 20


def tags(given: Any) -> dict[str, str] | None:
    """Return `tags=`, checked: text by name, short and printable; None if there are none."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise UsageError(f"tags is a dict of str by str, not {given!r}")
    found: dict[str, str] = {}
    for name, value in cast("Mapping[Any, Any]", given).items():
        if not _is_text(name, NAME_MAX) or not name:
            raise UsageError(
                f"tags: {name!r} is no name; expected 1 to {NAME_MAX} printable characters"
            )
        if not _is_text(value, TEXT_MAX):
            raise UsageError(
                f"tags: {name!r} is {value!r}; expected a str of at most {TEXT_MAX} printable "
                "characters"
            )
        found[name] = value
    if len(found) > TAGS_MAX:
        raise UsageError(f"tags: {len(found)} are given; at most {TAGS_MAX} are allowed")
    return found or None


def _is_text(value: Any, most: int) -> bool:
    return (
        isinstance(value, str)
        and len(value) <= most
        and (value.isprintable() or not value)
        and ids.is_storable(value)
    )


def index_state(workflow_id: str, given: Any, schema: StateSchema | None) -> tuple[str, ...]:
    """Return `index_state=` as places (`state.customer_id`), checked against the schema."""
    if given is None:
        return ()
    what = f"Workflow {workflow_id!r}: index_state"
    if isinstance(given, str) or not isinstance(given, list | tuple):
        raise WorkflowDefinitionError(f"{what} is a list of fields of the state, not {given!r}")
    names = cast("list[Any]", given)
    if names and schema is None:
        raise WorkflowDefinitionError(f"{what} needs state_schema=, whose fields it names")
    if len(names) > FIELDS_MAX:
        raise WorkflowDefinitionError(f"{what} has {len(names)} fields; at most {FIELDS_MAX}")
    found: list[str] = []
    for name in names:
        try:
            path = paths.parse(name)
        except UsageError as error:
            raise WorkflowDefinitionError(f"{what}: {error}") from None
        if schema is not None and not _has(schema, str(path[0])):
            raise WorkflowDefinitionError(
                f"{what}: {schema.cls.__name__} has no field {path[0]!r}; its fields are "
                f"{', '.join(schema.cls.model_fields)}"
            )
        if schema is not None and str(path[0]) in schema.secrets:
            raise WorkflowDefinitionError(
                f"{what}: {path[0]!r} holds a Secret, and the index keeps values in clear; name "
                "another field"
            )
        place = paths.spell(("state", *path))
        if not _is_text(place, NAME_MAX):
            raise WorkflowDefinitionError(f"{what}: {name!r} is longer than {NAME_MAX} characters")
        found.append(place)
    return tuple(dict.fromkeys(found))


def _has(schema: StateSchema, name: str) -> bool:
    return name in schema.cls.model_fields or schema.cls.model_config.get("extra") == "allow"
