"""Values that only code sees: masked wherever they are shown, marked where they are recorded."""

from __future__ import annotations

import typing
from typing import Any, Generic, TypeVar, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

T = TypeVar("T")

MARK = "$secret"
"""The only key of the JSON object that holds a secret in a record."""
MASK = "**********"
_SIGN = f'"{MARK}":'


class Secret(Generic[T]):
    """A value that is masked in repr, logs, the command line and exports.

    ```python
    class Order(BaseModel):
        card: Secret[str]
    ```
    Code gets the value with `reveal()`. It may stand in payloads, state, and results of steps and
    workflows of a client that has a `codec=` (or POLOS_ENCRYPTION_KEY): at rest it is encrypted.
    Without one it is refused with `SecretInClearError` before anything is stored.
    `model_dump_json()` writes the mask; `round_trip=True` writes the value.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value."""
        return self._value

    get_secret_value = reveal

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = cast("Any", self._value), cast("Secret[Any]", other)._value
        return type(mine) is type(theirs) and bool(mine == theirs)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        arguments = typing.get_args(source)
        inner = handler.generate_schema(arguments[0] if arguments else Any)
        marked = core_schema.typed_dict_schema(
            {MARK: core_schema.typed_dict_field(inner)}, extra_behavior="forbid"
        )
        recorded = core_schema.no_info_after_validator_function(
            lambda value: cls(value[MARK]), marked
        )
        given = core_schema.no_info_after_validator_function(cls, inner)
        taken = core_schema.no_info_wrap_validator_function(_of_secret, given)
        return core_schema.json_or_python_schema(
            core_schema.union_schema([recorded, given], mode="left_to_right"),
            core_schema.union_schema([taken, recorded], mode="left_to_right"),
            serialization=core_schema.wrap_serializer_function_ser_schema(
                serialize_secret, schema=inner, info_arg=True
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe what it holds, which is to be given and never shown."""
        found = handler(cast("Any", schema)["serialization"]["schema"])
        if found.get("type") == "string":
            found["format"] = "password"
        return {**found, "writeOnly": True}


def _of_secret(value: Any, handler: Any) -> Any:
    return handler(value.reveal() if isinstance(value, Secret) else value)


def serialize_secret(value: Any, handler: Any, info: Any) -> Any:
    """Write a secret for pydantic: as it is, marked for a record, or else masked."""
    if not isinstance(value, Secret):
        return handler(value)  # an assignment that nobody validated
    if info.mode == "python":
        return cast("Secret[Any]", value)
    return {MARK: handler(cast("Secret[Any]", value).reveal())} if info.round_trip else MASK


def holds(text: str) -> bool:
    """Say whether JSON text may have a secret in it."""
    return _SIGN in text


def stands_for(value: Any) -> bool:
    """Say whether plain data is what a record has of a secret."""
    return isinstance(value, dict) and len(cast("dict[str, Any]", value)) == 1 and MARK in value


def mask(value: Any) -> Any:
    """Return plain data with the mask in place of every secret."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        if stands_for(items):
            return MASK
        return {key: mask(item) for key, item in items.items()}
    if isinstance(value, list):
        return [mask(item) for item in cast("list[Any]", value)]
    return value
