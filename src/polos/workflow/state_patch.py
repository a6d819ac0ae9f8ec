"""Replacing fields of a recorded state from outside, validated as the code would see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from polos.core.delta import Fields
from polos.errors import InvalidStateError
from polos.workflow.state import StateSchema


def replaced(schema: StateSchema, fields: Fields, given: Any) -> Fields:
    """Return a record with top-level fields replaced by those that `given` has.

    `given` is a dict by field name or alias, or an instance of the state's class: then the fields
    that were set in it. `InvalidStateError` if a field is unknown or the whole does not fit.
    """
    cls = schema.cls
    values = _named(cls, _given(cls, given))
    model = schema.load(fields)
    known = {name: getattr(model, name) for name in cls.model_fields}
    _, record = schema.recorded({**known, **(model.model_extra or {}), **values})
    merged = {
        name: text if name in values else fields.get(name, text) for name, text in record.items()
    }
    schema.load(merged)
    schema.check_size(merged)
    return merged


def replaced_unseen(fields: Fields, given: Any, workflow_id: str) -> Fields:
    """Do so without the state's class, which this process does not know.

    Only fields that are recorded can be replaced; what does not fit is found by who loads it.
    """
    values: Mapping[str, Any] = given.model_dump() if isinstance(given, BaseModel) else given
    unknown = [name for name in values if name not in fields]
    if unknown:
        raise InvalidStateError(
            f"the recorded state of {workflow_id!r} has no field {unknown[0]!r}; its fields are "
            f"{', '.join(fields)}"
        )
    try:
        texts = {name: to_json(value, inf_nan_mode="constants") for name, value in values.items()}
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidStateError(f"state cannot be recorded: {error}") from error
    return fields | texts


def _given(cls: type[BaseModel], given: Any) -> dict[str, Any]:
    if isinstance(given, cls):
        names = [*given.model_fields_set]
        return {name: getattr(given, name) for name in names}
    if isinstance(given, Mapping):
        return dict(cast("Mapping[str, Any]", given))
    raise InvalidStateError(
        f"state is a dict of fields of {cls.__name__}, or an instance of it, not a "
        f"{type(given).__name__}"
    )


def _named(cls: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    aliases = {field.alias: name for name, field in cls.model_fields.items() if field.alias}
    open_ = cls.model_config.get("extra") == "allow"
    found: dict[str, Any] = {}
    for given, value in values.items():
        name = given if given in cls.model_fields else aliases.get(given, given)
        if name not in cls.model_fields and not open_:
            raise InvalidStateError(
                f"{cls.__name__} has no field {given!r}; its fields are "
                f"{', '.join(cls.model_fields)}"
            )
        found[name] = value
    return found
