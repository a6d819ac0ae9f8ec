"""Restores values from their JSON and descriptor, or from an annotation."""

import dataclasses
import logging
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic_core import PydanticUndefined, from_json, to_json

from polos.core.codec_classes import CLASSES_MAX, GONE, MISFITS, Classes, class_of, kind_of
from polos.core.codec_kinds import READERS, in_zone
from polos.core.codec_trust import is_same
from polos.errors import UsageError

_T = TypeVar("_T")

_log = logging.getLogger("polos.codec")


class Reader:
    """Restores values from their JSON and descriptor, or from an annotation."""

    def __init__(self, classes: Classes) -> None:
        self._classes = classes
        self._adapters: dict[Any, TypeAdapter[Any] | None] = {}
        self._targets: dict[Any, bool] = {}
        self._warned: set[str] = set()

    def plain(self, body: str, value: Any, hint: Any) -> Any:
        """Return `value`, that has no descriptor, as the class that `hint` names, if it fits."""
        try:
            if not _cached(self._targets, hint, _is_target):
                return value
            # By alias too: what has no descriptor may come from outside.
            return self._validate(hint, body, by_alias=True)
        except MISFITS:
            return value

    def read(self, body: str, shape: Any, hint: Any) -> Any:
        missing: list[str] = []
        value = self._read(body, shape, missing)
        if not missing:
            return value
        for source in (value, GONE) if hint is not None else ():
            try:
                fitted = self._validate(hint, body, value=source)
            except MISFITS:
                continue
            if not is_same(fitted, value):
                return fitted
            break  # an annotation that says nothing, such as Any
        for name in sorted(set(missing) - self._warned):
            self._warned.add(name)
            _log.warning(
                "class %r is not known in this process, so its data stays plain; import its "
                "module, or annotate the workflow with the class that took its place",
                name,
            )
        return value

    def _read(self, body: str, shape: Any, missing: list[str]) -> Any:
        """Restore from text; the common shapes without a tree in between."""
        kind = class_of(shape)
        if kind is str and ":" in shape:
            cls = self._classes.find(shape)
            if cls is not None:
                return self._load(cls, shape, body)
        elif kind is dict and len(shape) == 1 and body.startswith("["):
            cls = self._classes.find_model(shape.get("*"))
            if cls is not None:
                return self._load(list[cls | None], shape["*"], body)
        return self.restore(from_json(body), shape, missing)

    def restore(self, tree: Any, shape: Any, missing: list[str]) -> Any:
        """Return the JSON value `tree` as `shape` says; name the classes that are `missing`."""
        if shape is None:
            return tree
        if type(shape) is str:
            return self._whole(tree, shape, missing)
        name = shape.get("is")
        if name == "json":
            return self.restore(from_json(tree), shape["of"], missing)
        parts = self._parts(tree, shape, missing)
        if name is None:
            return parts
        if name in READERS:
            return in_zone(READERS[name](parts), shape.get("tz"))
        return self._assemble(name, parts, shape.get("how"), missing)

    def _whole(self, tree: Any, name: str, missing: list[str]) -> Any:
        if name in READERS:
            return READERS[name](tree)
        cls = self._classes.find(name)
        if cls is None:
            missing.append(name)
            return tree
        return self._load(cls, name, to_json(tree))

    def _assemble(self, name: str, parts: Any, how: str | None, missing: list[str]) -> Any:
        cls = self._classes.find(name)
        if cls is None:
            missing.append(name)
            return tuple(parts) if how == "tuple" else parts
        try:
            return _assembled(cls, parts, raw=how == "raw")
        except MISFITS as error:
            raise _misfit(name, error) from error

    def _parts(self, tree: Any, shape: dict[str, Any], missing: list[str]) -> Any:
        every = shape.get("*")
        if every is not None:
            kind = class_of(tree)
            is_list = kind is list
            cls = self._classes.find_model(every) if is_list else None
            if cls is not None:
                return self._load(list[cls | None], every, to_json(tree))
            keys: Iterable[Any] = range(len(tree)) if is_list else list(tree)
            for key in keys:
                if tree[key] is not None:
                    tree[key] = self.restore(tree[key], every, missing)
        for part, places in shape.get("at", ()):
            for key in places:
                tree[key] = self.restore(tree[key], part, missing)
        if "keys" in shape:
            names = self._parts(list(tree), shape["keys"], missing)
            return dict(zip(names, tree.values(), strict=True))
        return tree

    def _load(self, hint: Any, name: str, body: str | bytes) -> Any:
        """Let the class `name` load its own JSON; `hint` is the class, or a list of it."""
        try:
            match kind_of(hint):
                case "enum":
                    return hint(from_json(body))
                case "model":
                    load = hint.__pydantic_validator__.validate_json
                    return load(body, by_alias=False, by_name=True)
                case _:
                    return self._validate(hint, body)
        except MISFITS as error:
            raise _misfit(name, error) from error

    def _validate(
        self, hint: Any, body: str | bytes, *, value: Any = GONE, by_alias: bool = False
    ) -> Any:
        """Validate the JSON `body`, or `value` where parts of it are restored already."""
        adapter = _cached(self._adapters, hint, _adapter)
        if adapter is None:
            return _convert(hint, from_json(body) if value is GONE else value)
        if value is GONE:
            return adapter.validate_json(body, by_alias=by_alias, by_name=True)
        return adapter.validate_python(value, by_alias=by_alias, by_name=True)


def _cached(cache: dict[Any, _T], key: Any, make: Callable[[Any], _T]) -> _T:
    try:
        return cache[key]
    except KeyError:
        if len(cache) > CLASSES_MAX:
            cache.clear()
        value = cache[key] = make(key)
        return value
    except TypeError:  # an annotation that cannot be hashed
        return make(key)


def _is_target(hint: Any) -> bool:
    """Tell whether an annotation is a class of the kinds, or Optional of one."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        options = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        hint = options[0] if len(options) == 1 else None
    return kind_of(typing.get_origin(hint) or hint) is not None


def _adapter(hint: Any) -> TypeAdapter[Any] | None:
    try:
        return TypeAdapter(hint)
    except (NameError, RuntimeError, TypeError):  # not a type that pydantic knows
        return None


def _convert(hint: Any, value: Any) -> Any:
    msgspec: Any = sys.modules.get("msgspec")
    if msgspec is None:
        raise TypeError(f"pydantic cannot validate {hint!r}")
    kind = class_of(value)
    if kind is dict and kind_of(hint) == "struct":
        # Recorded by field name, but msgspec reads the names that `rename` makes of them.
        names = {field.name: field.encode_name for field in msgspec.structs.fields(hint)}
        value = {names.get(key, key): item for key, item in value.items()}
    return msgspec.convert(value, hint)


def _assembled(cls: Any, parts: Any, *, raw: bool) -> Any:
    """Make an instance of `cls` from restored parts; `raw` passes over its own checks."""
    match kind_of(cls):
        case "enum":
            return cls[parts]
        case "namedtuple":
            return cls(*parts)
        case "model" if raw:
            return _raw_model(cls, parts)
        case "model":
            content = parts["root"] if issubclass(cls, RootModel) else parts
            validator = cls.__pydantic_validator__
            return validator.validate_python(content, by_alias=False, by_name=True)
        case "dataclass" if raw:
            return _raw_dataclass(cls, parts)
        case "dataclass":
            names = {field.name for field in dataclasses.fields(cls) if field.init}
            return cls(**{name: part for name, part in parts.items() if name in names})
        case _:
            parts = {name: part for name, part in parts.items() if name in cls.__struct_fields__}
            value = cls(**parts)
            for name, part in parts.items() if raw else ():
                sys.modules["msgspec"].structs.force_setattr(value, name, part)
            return value


def _raw_model(cls: type[BaseModel], parts: dict[str, Any]) -> BaseModel:
    state: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        if name in parts:
            state[name] = parts[name]
        elif not field.is_required():
            state[name] = field.get_default(call_default_factory=True, validated_data=state)
    private = {name: attr.get_default() for name, attr in cls.__private_attributes__.items()}
    private = {name: item for name, item in private.items() if item is not PydanticUndefined}
    extra = {name: part for name, part in parts.items() if name not in state}
    value = cls.__new__(cls)
    # What `copy` and `pickle` use, not what the class may have made of it.
    BaseModel.__setstate__(
        value,
        {
            "__dict__": state,
            "__pydantic_fields_set__": parts.keys() & state.keys(),
            "__pydantic_extra__": extra if cls.model_config.get("extra") == "allow" else None,
            "__pydantic_private__": private if cls.__private_attributes__ else None,
        },
    )
    return value


def _raw_dataclass(cls: Any, parts: dict[str, Any]) -> Any:
    value = cls.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in parts:
            object.__setattr__(value, field.name, parts[field.name])
        elif field.default is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(value, field.name, field.default_factory())
    return value


def _misfit(name: str, error: Exception) -> UsageError:
    details = f"{type(error).__name__}: {error}"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[:3]
        places = (".".join(map(str, item["loc"])) or "value" for item in first)
        details = "; ".join(f"{p}: {item['msg']}" for p, item in zip(places, first, strict=True))
    return UsageError(
        f"recorded data does not fit class {name!r} any more ({details}); give new fields a "
        "default and keep reading old ones, or bring the old class back until its data is gone"
    )
