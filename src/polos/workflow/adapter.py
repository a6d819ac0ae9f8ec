"""One pydantic validator for every kind of annotation that a payload may have.

Adds to pydantic what it does not know: msgspec structs, `typing.TypedDict` before Python 3.12,
and unions of classes with `dict` that are read back from JSON.
"""

import dataclasses
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NotRequired, Required, Union, cast

import typing_extensions
from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)
from pydantic_core import CoreSchema, core_schema, to_json, to_jsonable_python

from polos.workflow import hints


class Adapter:
    """Turns values into `hint`, by pydantic's lax rules.

    Building one costs as much as defining a model; keep it. Raises `PydanticUserError` (or
    `PydanticUndefinedAnnotation`) for a type that nobody can validate.
    """

    def __init__(self, hint: Any) -> None:
        try:
            self._validator: TypeAdapter[Any] = TypeAdapter(_for_pydantic(hint))
        except PydanticSchemaGenerationError:
            if not _holds_struct(hint):
                raise
            # A dataclass with structs in its fields: msgspec knows both.
            self._validator = TypeAdapter(_by_msgspec(hint))

    def validate(self, value: Any) -> Any:
        """Return `value` as the type, from an instance, from plain data or from its JSON form.

        Fields are found by name and by alias, because recorded values have names. Raises
        pydantic's `ValidationError`.
        """
        try:
            return self._validator.validate_python(value, by_alias=True, by_name=True)
        except ValidationError as error:
            # As JSON, an object of another class is a dict, and a strict model takes a date.
            try:
                plain = to_jsonable_python(value, by_alias=False, round_trip=True, fallback=_dump)
                text = to_json(plain, inf_nan_mode="constants")
                return self._validator.validate_json(text, by_alias=True, by_name=True)
            except ValueError:
                raise error from None


def _dump(value: Any) -> Any:
    if hints.is_struct(type(value)):
        return _msgspec().to_builtins(value)
    raise ValueError(f"{type(value).__name__} has no JSON form")


def _for_pydantic(hint: Any, outer: tuple[Any, ...] = ()) -> Any:
    """Return `hint` with what pydantic does not know replaced; `outer` ends recursive types."""
    if hints.is_struct(hint):
        return _by_msgspec(hint)
    if _is_old_typed_dict(hint):
        return dict[str, Any] if hint in outer else _typed_dict(hint, (*outer, hint))
    arguments = typing.get_args(hint)
    replaced = tuple(_for_pydantic(argument, outer) for argument in arguments)
    if hints.is_union(hint):
        return _records_first(replaced)
    if all(new is old for new, old in zip(replaced, arguments, strict=True)):
        return hint
    origin: Any = typing.get_origin(hint)
    if origin is Annotated:
        return Annotated[(replaced[0], *hint.__metadata__)]
    return origin[replaced]


def _by_msgspec(hint: Any) -> Any:
    return Annotated[hint, _ByMsgspec(hint)]


class _ByMsgspec:
    """Lets pydantic leave one type to msgspec."""

    def __init__(self, hint: Any) -> None:
        self._hint = hint

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._convert)

    def _convert(self, value: Any) -> Any:
        if isinstance(value, self._hint):
            return value
        msgspec = _msgspec()
        try:
            return msgspec.convert(value, self._hint, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error


def _holds_struct(hint: Any, outer: tuple[Any, ...] = ()) -> bool:
    parts: Iterable[Any] = typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and hint not in outer:
        parts = typing.get_type_hints(hint).values()
    return hints.is_struct(hint) or any(_holds_struct(part, (*outer, hint)) for part in parts)


def _msgspec() -> Any:
    return sys.modules["msgspec"]


def _is_old_typed_dict(hint: Any) -> bool:
    return (
        sys.version_info < (3, 12)
        and typing.is_typeddict(hint)
        and type(hint).__module__ == "typing"
    )


def _typed_dict(hint: Any, outer: tuple[Any, ...]) -> Any:
    fields: dict[str, Any] = {}
    for key, field in typing.get_type_hints(hint, include_extras=True).items():
        required = key in hint.__required_keys__
        marker = typing.get_origin(field)
        # `__required_keys__` does not know markers that were strings when the class was made.
        if marker in (Required, NotRequired):
            required, field = marker is Required, typing.get_args(field)[0]  # noqa: PLW2901
        inner = _for_pydantic(field, outer)
        fields[key] = Required[inner] if required else NotRequired[inner]
    same = cast("Any", typing_extensions.TypedDict)(hint.__name__, fields)
    same.__module__ = hint.__module__
    if hasattr(hint, "__pydantic_config__"):
        same.__pydantic_config__ = hint.__pydantic_config__
    return same


def _is_mapping(hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _records_first(alternatives: tuple[Any, ...]) -> Any:
    """Return the union of `alternatives`, in which classes come before dicts.

    As JSON a model is a dict like any other, and pydantic would take it for the plain dict that
    it is as soon as one field needs coercion.
    """
    records = [member for member in alternatives if hints.is_record(hints.members(member)[0])]
    mappings = [member for member in alternatives if _is_mapping(member)]
    if not records or not mappings:
        return Union[alternatives]  # noqa: UP007
    union = Union[alternatives]  # noqa: UP007
    return Annotated[union, WrapValidator(_record_or_mapping(records, mappings))]


def _record_or_mapping(
    records: list[Any], mappings: list[Any]
) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """Return what takes a dict for a record where one fits with nothing left over."""
    record_validator = _union_validator(records)
    mapping_validator = _union_validator(mappings)

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        if not isinstance(value, Mapping):
            return handler(value)
        given = cast("Mapping[str, Any]", value)
        for validator in (record_validator, mapping_validator):
            try:
                result = validator.validate_python(given, by_alias=True, by_name=True)
            except ValidationError:
                continue
            if _has_all(result, given):
                return result
        return handler(given)

    return validate


def _union_validator(alternatives: list[Any]) -> TypeAdapter[Any]:
    union: Any = Union[tuple(alternatives)]  # noqa: UP007
    return TypeAdapter(union)


def _has_all(record: Any, given: Mapping[str, Any]) -> bool:
    """Whether no key of `given` was dropped, as models with unknown keys do."""
    if isinstance(record, BaseModel):
        return len(record.model_fields_set) >= len(given)
    if dataclasses.is_dataclass(record):
        return given.keys() <= {field.name for field in dataclasses.fields(record)}
    return given.keys() <= set(getattr(record, "__struct_encode_fields__", given.keys()))
