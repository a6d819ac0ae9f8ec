"""Questions about annotations: what they stand for, what they are called, what they let through."""

import collections.abc
import dataclasses
import decimal
import enum
import functools
import inspect
import pathlib
import sys
import types
import typing
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import Annotated, Any, ForwardRef, Literal, TypeGuard, Union, cast

from pydantic import BaseModel

if sys.version_info >= (3, 14):
    import annotationlib

NoneType = type(None)
MISSING: Any = inspect.Parameter.empty
UNRESOLVED: Any = object()

SCALARS: set[Any] = {
    *(Any, None, NoneType, object, ...),
    *(bool, int, float, str, bytes, decimal.Decimal, uuid.UUID, pathlib.Path),
    *(datetime, date, time, timedelta),
}
CONTAINERS: set[Any] = {
    *(dict, list, set, frozenset, tuple, Annotated, Union, types.UnionType),
    *(collections.abc.Mapping, collections.abc.Sequence, collections.abc.Set),
    *(collections.abc.MutableMapping, collections.abc.MutableSequence),
}


def is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (Union, types.UnionType)


def members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, or `hint` alone; looks through annotations, aliases."""
    if type(hint).__name__ == "TypeAliasType":
        return members(hint.__value__)
    if typing.get_origin(hint) is Annotated:
        return members(typing.get_args(hint)[0])
    if is_union(hint):
        return tuple(inner for member in typing.get_args(hint) for inner in members(member))
    return (hint,)


def accepts_none(hint: Any) -> bool:
    return any(member in (Any, None, NoneType, object) for member in members(hint))


def is_model(hint: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def is_struct(hint: Any) -> bool:
    """Whether `hint` is a msgspec struct; one can only exist if msgspec is loaded already."""
    msgspec = sys.modules.get("msgspec")
    if msgspec is None or not isinstance(hint, type):
        return False
    return issubclass(hint, cast("type[Any]", msgspec.Struct))


def is_record(hint: Any) -> bool:
    """Whether `hint` is a class of objects with named fields, which JSON shows as a plain dict."""
    if not isinstance(hint, type):
        return False
    return is_model(hint) or dataclasses.is_dataclass(hint) or is_struct(hint)


def is_known(hint: Any) -> bool:
    """Whether `hint` can be validated for certain; otherwise only building a validator tells."""
    if typing.get_origin(hint) is Literal:
        return True
    if typing.get_origin(hint) is Annotated:
        return is_known(typing.get_args(hint)[0])
    if arguments := typing.get_args(hint):
        return typing.get_origin(hint) in CONTAINERS and all(map(is_known, arguments))
    if hint in SCALARS or hint in CONTAINERS or is_record(hint) or typing.is_typeddict(hint):
        return True
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def first_model(hint: Any) -> type[BaseModel] | None:
    return next((member for member in members(hint) if is_model(member)), None)


def name_of(hint: Any) -> str:
    """Return `hint` as one would write it, without the modules."""
    if hint is None or hint is NoneType:
        return "None"
    if hint is ...:
        return "..."
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return name_of(arguments[0])
    if is_union(hint):
        return " | ".join(name_of(member) for member in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(repr(value) for value in arguments)}]"
    if origin is not None and arguments:
        return f"{name_of(origin)}[{', '.join(name_of(argument) for argument in arguments)}]"
    return getattr(hint, "__name__", None) or str(hint)


def result_of(func: Callable[..., Any]) -> Any | None:
    """Return the return annotation of `func`; None where it is None, missing or not resolvable."""
    try:
        annotation = signature_of(func).return_annotation
    except (TypeError, ValueError):  # not written in Python
        return None
    hint = resolve(func, annotation, {})
    return None if hint in (MISSING, UNRESOLVED, NoneType) else hint


def signature_of(func: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations are code there; a class that does not exist yet must not stop us.
        return inspect.signature(func, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(func)


def resolve(func: Callable[..., Any], annotation: Any, scope: Mapping[str, Any]) -> Any:
    """Return what `annotation` stands for, or `UNRESOLVED` while a name in it is unknown."""
    if annotation is MISSING or (isinstance(annotation, type) and not typing.get_args(annotation)):
        return annotation
    plain = _plain_function(func)
    names = {**scope, **dict(_closure(plain))}
    # A class and not a namespace: get_type_hints wants one of the things that have annotations.
    holder = type("_Holder", (), {"__annotations__": {"it": annotation}})
    try:
        hint = typing.get_type_hints(
            holder, getattr(plain, "__globals__", {}), names, include_extras=True
        )["it"]
    except (NameError, AttributeError, SyntaxError, TypeError):
        return UNRESOLVED
    return UNRESOLVED if isinstance(hint, ForwardRef) else hint


def _plain_function(func: Any) -> Any:
    """Return the function below partials, methods, wrappers and objects that can be called."""
    while isinstance(func, functools.partial):
        func = cast("Any", func).func
    func = inspect.unwrap(func)
    if not isinstance(func, types.FunctionType | types.MethodType):
        func = type(func).__call__
    return getattr(func, "__func__", func)


def _closure(func: Any) -> Iterator[tuple[str, Any]]:
    code = getattr(func, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), func.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # defined below the workflow: not there yet
            continue
