"""State fields whose value lies apart from the state, and counts as little as its reference."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from polos.core import delta
from polos.core.delta import Fields
from polos.errors import WorkflowDefinitionError

COUNTED_BYTES = 100
"""What a spilled field counts for the limit of a state."""
SPILLED_MAX = 67_108_864
"""Bytes of all spilled fields of a state together."""
ADVICE = (
    "Keep large data elsewhere (a Blob, a file, the result of a step), and in state only where to "
    "find it; or mark the field with Annotated[..., Spilled], for 64 MB"
)


class Spilled:
    """Marks a state field that may be large: `rows: Annotated[list[str], Spilled] = []`.

    It counts 100 bytes for the limit of 1 MB; all of them together may have 64 MB. Whole values of
    more than 64 KB are stored once, under their digest; a change is recorded as what changed.
    """


def fields_of(cls: type[BaseModel]) -> frozenset[str]:
    """Return the names of the marked fields of a schema.

    Raises `WorkflowDefinitionError` for a mark elsewhere, which would mark nothing.
    """
    found: set[str] = set()
    for name, field in cls.model_fields.items():
        members = _members(field.annotation)
        if any(map(_is_mark, field.metadata)) or any(_is_marked(each) for each in members):
            found.add(name)
        elif any(_has_marks(each, {cls}) for each in members):
            raise WorkflowDefinitionError(
                f"state field {name!r} of {cls.__name__}: Spilled marks a whole field of a state, "
                "not a part of one; make what is large a field of its own"
            )
    return frozenset(found)


def _is_mark(each: Any) -> bool:
    return each is Spilled or isinstance(each, Spilled)


def _members(annotation: Any) -> Sequence[Any]:
    """Return the members of a union, or the annotation itself."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else [annotation]


def _is_marked(annotation: Any) -> bool:
    return any(map(_is_mark, getattr(annotation, "__metadata__", ())))


def _has_marks(annotation: Any, seen: set[Any]) -> bool:
    if _is_marked(annotation):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return False
        seen.add(annotation)
        fields = annotation.model_fields.values()
        return any(any(map(_is_mark, f.metadata)) or _has_marks(f.annotation, seen) for f in fields)
    return any(_has_marks(each, seen) for each in typing.get_args(annotation))


def counted(fields: Fields, spilled: frozenset[str]) -> tuple[int, int]:
    """Return what a state counts, and the bytes of its spilled fields."""
    apart = sum(len(fields[name]) for name in spilled & fields.keys())
    return delta.size(fields) - apart + COUNTED_BYTES * len(spilled & fields.keys()), apart
