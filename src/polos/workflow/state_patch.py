"""Replacing fields of a recorded state from outside, validated as the code would see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from polos.core import delta, marks
from polos.core.delta import Fields
from polos.errors import InvalidStateError
from polos.workflow.evolving import field_named
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
        return fields | texts(values)
    except ValueError as error:
        raise InvalidStateError(f"state cannot be recorded: {error}") from error


def texts(values: Mapping[str, Any]) -> Fields:
    """Return given values as JSON, by field name and with what only code sees.

    ValueError for what JSON cannot hold, or could not be read: it may be too deep.
    """
    found = {
        name: to_json(
            value,
            by_alias=False,
            round_trip=True,
            inf_nan_mode="constants",
            bytes_mode="base64",
            fallback=marks.marked,
        )
        for name, value in values.items()
    }
    from_json(delta.encoded(found))
    return found


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
    return {field_named(cls, name): value for name, value in values.items()}
