"""State fields whose value lies apart from the state, and counts as little as its reference."""

from __future__ import annotations

from pydantic import BaseModel

from polos.core import delta
from polos.core.delta import Fields

COUNTED_BYTES = 100
"""What a spilled field counts for the limit of a state."""
SPILLED_MAX = 67_108_864
"""Bytes of all spilled fields of a state together."""


class Spilled:
    """Marks a state field that may be large: `rows: Annotated[list[str], Spilled] = []`.

    It counts 100 bytes for the limit of 1 MB; all of them together may have 64 MB. Whole values of
    more than 64 KB are stored once, under their digest; a change is recorded as what changed.
    """


def fields_of(cls: type[BaseModel]) -> frozenset[str]:
    """Return the names of the marked fields of a schema."""
    return frozenset(
        name
        for name, field in cls.model_fields.items()
        if any(each is Spilled or isinstance(each, Spilled) for each in field.metadata)
    )


def counted(fields: Fields, spilled: frozenset[str]) -> tuple[int, int]:
    """Return what a state counts, and the bytes of its spilled fields."""
    apart = sum(len(fields[name]) for name in spilled & fields.keys())
    return delta.size(fields) - apart + COUNTED_BYTES * len(spilled & fields.keys()), apart
