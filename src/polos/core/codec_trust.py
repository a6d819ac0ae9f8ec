"""Whether a model's own JSON loads back as it was."""

import re
import typing
from collections.abc import Sequence
from enum import Enum
from typing import Any

from pydantic import BaseModel, TypeAdapter

from polos.core.codec_classes import GONE, MISFITS, class_of, fields_of, name_of
from polos.core.codec_kinds import DEPTH, WRITERS

_LONG_NUMBER = re.compile(rb"\d{19}")  # in every 200th byte: of a number with 4,000 digits


class Survey:
    """Whether the JSON of a model's instances loads back as them, as far as its schema tells."""

    def __init__(self, cls: type[BaseModel]) -> None:
        self.cls = cls
        self.name = name_of(cls)
        self._sets = False
        self._trusted = True
        self._nested: set[type] = set()
        self._definitions: dict[str, Any] = {}
        self._done: set[str] = set()
        self._open: set[str] = set()
        self._list: TypeAdapter[Any] | None = None
        schema: Any = cls.__pydantic_core_schema__
        if isinstance(schema, dict):
            self._visit(schema)
            self._nested.discard(cls)
        else:  # not built yet, a placeholder
            self._trusted = False

    def dump(self, value: BaseModel, depth: int) -> str | None:
        """Return the model's own JSON, or None if the instance would not come back from it."""
        if self._sets:
            return None  # pydantic writes them in the order of this process's hashes
        try:
            raw = self.cls.__pydantic_serializer__.to_json(
                value, by_alias=False, round_trip=True, warnings="error"
            )
            if not self._is_safe(raw):
                load = self.cls.__pydantic_validator__.validate_json
                if not is_same(value, load(raw, by_alias=False, by_name=True), depth):
                    return None
            return raw.decode()
        except MISFITS:
            return None

    def dump_all(self, values: Sequence[Any]) -> str | None:
        """Return the JSON of many instances, or None if they must be looked at one by one."""
        if not self._trusted or any(class_of(value) is not self.cls for value in values):
            return None
        if self._list is None:
            every: Any = list[self.cls]
            self._list = TypeAdapter(every)
        try:
            raw = self._list.dump_json(
                list(values), by_alias=False, round_trip=True, warnings="error"
            )
        except MISFITS:
            return None
        return raw.decode() if self._is_safe(raw) else None

    def _is_safe(self, raw: bytes) -> bool:
        # null may stand for NaN; an instance of a subclass is written as its declared base.
        return (
            self._trusted
            and b"null" not in raw
            and not _LONG_NUMBER.search(raw[::200])
            and not (self._nested and any(cls.__subclasses__() for cls in self._nested))
        )

    def _visit(self, node: Any) -> None:
        if isinstance(node, (list, tuple)):
            for part in typing.cast("Sequence[Any]", node):
                self._visit(part)
        elif isinstance(node, dict):
            self._visit_dict(typing.cast("dict[str, Any]", node))

    def _visit_dict(self, node: dict[str, Any]) -> None:
        kind = node.get("type")
        if kind == "definitions":
            self._definitions |= {part["ref"]: part for part in node["definitions"]}
            self._visit(node["schema"])
        elif kind == "definition-ref":
            self._follow(node["schema_ref"])
        else:
            if isinstance(kind, str):  # otherwise a dict of fields or choices
                self._judge(kind, node)
            for key, part in node.items():
                if key not in _OPAQUE:
                    self._visit(part)

    def _follow(self, ref: str) -> None:
        if ref in self._open or ref not in self._definitions:
            self._trusted = False  # recursive: instances may be nested too deep to be read
        elif ref not in self._done:
            self._open.add(ref)
            self._visit(self._definitions[ref])
            self._open.discard(ref)
            self._done.add(ref)

    def _judge(self, kind: str, node: dict[str, Any]) -> None:
        self._sets = self._sets or kind in ("set", "frozenset")
        if kind == "model":
            self._nested.add(node["cls"])
        # By identity: `ge=0` is a constraint, and 0 equals False.
        others = (node[key] for key in node.keys() - _NODE_KEYS)
        unknown = any(item is not None and item is not False for item in others)
        options = node.get("config", {}).keys() - _CONFIG_KEYS
        dict_keys = node.get("keys_schema", {}).get("type", "str")
        values = [member.value for member in node.get("members", ())]
        if (
            kind not in _NODES
            or unknown
            or options
            or dict_keys != "str"
            or not all(type(value) in (int, str) for value in values)
        ):
            self._trusted = False


# What a schema may consist of so that no instance needs to be checked. Not in it: what converts
# (unions, any, functions), what restricts (an assignment may have broken it), what pydantic does
# not check when it writes (Literal), what it writes but does not load (an infinite Decimal).
_NODES = frozenset(
    {
        *("model", "model-fields", "model-field", "nullable", "default"),
        *("str", "int", "float", "bool", "uuid", "enum", "list", "dict", "tuple"),
        *("datetime", "date", "time", "timedelta"),
    }
)
_NODE_KEYS = frozenset(
    {
        *("type", "schema", "fields", "cls", "config", "ref", "metadata", "root_model", "frozen"),
        *("generic_origin", "model_name", "computed_fields", "members", "sub_type"),
        *("serialization_alias", "validation_alias", "microseconds_precision"),
        *("default", "default_factory", "default_factory_takes_data"),
        *("items_schema", "variadic_item_index", "keys_schema", "values_schema"),
    }
)
_CONFIG_KEYS = frozenset(
    {
        *("title", "frozen", "from_attributes"),
        *("validate_by_alias", "validate_by_name", "populate_by_name"),
    }
)
_OPAQUE = frozenset({"computed_fields", "config", "default", "expected", "members", "metadata"})


def is_same(one: Any, other: Any, depth: int = 0) -> bool:
    """Tell whether a value came back: equal in all that is recorded, and of the same types."""
    kind = class_of(other)
    if type(one) is not kind and not _decays(one, kind):
        return False
    if kind in WRITERS:
        return bool(one == other) or (is_nan(one) and is_nan(other))
    if issubclass(kind, (set, frozenset)):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    ones, others = _contents(one, kind), _contents(other, kind)
    if ones is None or others is None:
        return bool(one == other)
    return (
        depth < DEPTH
        and len(ones) == len(others)
        and all(a is b or is_same(a, b, depth + 1) for a, b in zip(ones, others, strict=True))
    )


def _contents(value: Any, kind: type[Any]) -> Sequence[Any] | None:
    if issubclass(kind, dict):
        return [*value, *value.values()]
    if issubclass(kind, (list, tuple)):
        return value
    fields = fields_of(kind)
    if fields is None:
        return None
    extra = getattr(value, "__pydantic_extra__", None)
    return [extra, *(getattr(value, field, GONE) for field in fields)]


def is_nan(value: Any) -> bool:
    return bool(value != value)  # noqa: PLR0124 - nothing else differs from itself


def _decays(value: Any, kind: type) -> bool:
    if isinstance(value, Enum):
        return False
    return (kind in _BASES and isinstance(value, kind)) or (kind is float and type(value) is int)


_BASES = WRITERS.keys() | {list, tuple, dict, set, frozenset}
