"""What pydantic knows of a model class, in the form in which state is recorded."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import (
    PydanticSerializationUnexpectedValue,
    SchemaSerializer,
    SchemaValidator,
    core_schema,
    to_json,
)

# A node of pydantic's core schema, or a part of one. Nodes have a "type".
Node = dict[str, Any]

# Recorded state has to come back exactly, whatever the classes in it say about their JSON. A key
# that a class does not have would be lost on the way, so it is refused.
CONFIG: dict[str, Any] = {
    "ser_json_bytes": "base64",
    "val_json_bytes": "base64",
    "ser_json_inf_nan": "constants",
    "ser_json_temporal": "iso8601",
    "ser_json_timedelta": "iso8601",
    "serialize_by_alias": False,
}
_CONFIGURED = frozenset({"model", "dataclass", "typed-dict"})

# Parts of a node that hold values, not nodes.
_OPAQUE = frozenset({"cls", "config", "default", "expected", "function", "members", "metadata"})

# As it is, but without what the type checker concludes from it about values of unknown type.
_is_a: Callable[[Any, Any], bool] = isinstance
_prebuilt = threading.Lock()


@dataclass(frozen=True)
class ModelSchema:
    """The core schema of a model class, taken apart; its nodes are those of recorded state."""

    root: Node
    """All of it: with the validators of the class around, and its definitions."""
    model: Node
    fields: dict[str, Node]
    definitions: dict[str, Node]
    classes: frozenset[type]
    validated_whole: bool
    """Whether code of the class runs when all fields are read, and may change them."""

    def with_definitions(self, node: Node) -> Node:
        """Return a schema of its own for a node of this one."""
        if not self.definitions:
            return node
        return {
            "type": "definitions",
            "schema": node,
            "definitions": list(self.definitions.values()),
        }

    def config(self, **more: Any) -> Any:
        """Return the configuration for reading and writing state outside of nested classes."""
        return {**self.model["config"], **more}

    def of_field(self, name: str) -> Node:
        """Return a schema of its own for lists of what a field holds."""
        return self.with_definitions({"type": "list", "items_schema": self.fields[name]["schema"]})

    def looks_around(self, name: str) -> bool:
        """Tell whether code that reads a field may look at the fields before it."""
        field: Node = self.fields[name]
        return any(_takes_info(node) for node in _everything(field))

    def is_plain_list(self, name: str) -> bool:
        """Tell whether a field holds lists of which only the items are looked at."""
        node: Node = self.fields[name]["schema"]
        while node["type"] == "default":
            node = node["schema"]
        return node["type"] == "list" and node.keys() <= {"type", "items_schema", "metadata"}

    def has_fixed_defaults(self) -> bool:
        """Tell whether an instance of which nothing is given has the same values every time."""
        nodes: list[Node] = [field["schema"] for field in self.fields.values()]
        checked = self.model["config"].get("validate_default")
        return not (self.validated_whole or checked) and all(
            node["type"] == "default" and "default" in node and not node.get("validate_default")
            for node in nodes
        )

    def flat_serializer(self) -> SchemaSerializer:
        """Return what writes instances with the same key, a NUL, for every field.

        That is how a text is cut into its fields without reading it.
        """
        fields = self.model["schema"]
        while fields["type"] != "model-fields":
            fields = fields["schema"]
        keyed = {name: {**each, "serialization_alias": "\0"} for name, each in self.fields.items()}
        config = {**self.model["config"], "serialize_by_alias": True}
        model: Node = {
            "type": "model",
            "cls": self.model["cls"],
            "schema": {**fields, "fields": keyed, "computed_fields": []},
            "config": config,
        }
        return self.serializer(self.with_definitions(model), serialize_by_alias=True)

    def validator(self, node: Node) -> SchemaValidator:
        """Return what reads a node, or the whole."""
        with _without_prebuilt(self.classes):
            return SchemaValidator(node, self.config())  # pyright: ignore[reportArgumentType]

    def serializer(self, node: Node, **config: Any) -> SchemaSerializer:
        """Return what writes a node."""
        with _without_prebuilt(self.classes):
            return SchemaSerializer(node, self.config(**config))  # pyright: ignore[reportArgumentType]


def read(cls: type[BaseModel]) -> ModelSchema:
    """Take apart the schema of a class; pydantic's errors where it has none."""
    if not cls.__pydantic_complete__:
        cls.model_rebuild()
    classes: set[type] = set()
    root = _rewritten(cls.__pydantic_core_schema__, lambda node: _for_state(node, classes))
    definitions = {node["ref"]: node for node in root.get("definitions", ())}
    model, functions = _inner(root, definitions, "model")
    fields, more = _inner(model["schema"], definitions, "model-fields")
    return ModelSchema(
        root,
        model,
        fields["fields"],
        definitions,
        frozenset(classes),
        functions or more or _has_post_init(cls),
    )


def is_node(part: Any) -> bool:
    """Tell whether a part of a core schema is a node, rather than a group of nodes."""
    return _is_a(part, dict) and _is_a(part.get("type"), str)


def inner_nodes(node: Node) -> Iterator[Node]:
    """Yield the nodes that a node reads its value with."""
    for key, part in node.items():
        if key not in _OPAQUE and key != "serialization":
            yield from nodes(part)


def nodes(part: Any) -> Iterator[Node]:
    """Yield the nodes of a group; a node is a group of one."""
    if is_node(part):
        yield part
    elif _is_a(part, dict | list | tuple):
        for each in part.values() if _is_a(part, dict) else part:
            yield from nodes(each)


def _everything(node: Node) -> Iterator[Node]:
    yield node
    for inner in inner_nodes(node):
        yield from _everything(inner)


def _takes_info(node: Node) -> bool:
    function: Any = node.get("function")
    return is_node(function) and function["type"] == "with-info"


def _inner(node: Node, definitions: dict[str, Node], kind: str) -> tuple[Node, bool]:
    """Return the node of a kind inside others, and whether there are functions around it."""
    functions = False
    while node["type"] != kind:
        functions = functions or node["type"].startswith("function-")
        ref = node.get("schema_ref")
        node = node["schema"] if ref is None else definitions[ref]
    return node, functions


def _has_post_init(cls: type[BaseModel]) -> bool:
    # Pydantic puts its own method into classes that have private attributes.
    return any(
        getattr(each.__dict__.get("model_post_init"), "__module__", "pydantic").split(".")[0]
        != "pydantic"
        for each in cls.__mro__
        if each is not BaseModel
    )


def _rewritten(part: Any, change: Callable[[Node], Node]) -> Any:
    """Return a copy of a part of a schema, with every node in it changed from the inside out."""
    if _is_a(part, list | tuple):
        return type(part)(_rewritten(each, change) for each in part)
    if not _is_a(part, dict):
        return part
    opaque = _OPAQUE if is_node(part) else ()
    made: Node = {
        key: each if key in opaque else _rewritten(each, change) for key, each in part.items()
    }
    return change(made) if is_node(part) else made


def _for_state(node: Node, classes: set[type]) -> Node:
    kind: str = node["type"]
    node.pop("serialization_alias", None)
    node.pop("serialization_exclude_if", None)
    if kind in _CONFIGURED:
        config: Node = node.get("config") or {}
        node["config"] = {**config, **CONFIG}
        # Who writes an object in an own way may write keys that are not read.
        if config.get("extra_fields_behavior") != "allow" and "serialization" not in node:
            node["config"]["extra_fields_behavior"] = "forbid"
        if kind == "model":
            # State is put back as it was, not made anew: an `__init__` of the class has no say.
            node["custom_init"] = False
        classes.add(node.get("cls", object))
    elif kind in ("set", "frozenset") and "serialization" not in node:
        node["serialization"] = _SORTED
    return node


def _in_order(value: Any, write: Callable[[Any], list[Any]]) -> list[Any]:
    """Return the members of a set in an order that is the same in every process."""
    if not isinstance(value, set | frozenset):
        raise PydanticSerializationUnexpectedValue("Expected a set")
    members = write(value)
    strings = all(type(member) is str for member in members)
    return sorted(members, key=None if strings else to_json)


_SORTED = core_schema.wrap_serializer_function_ser_schema(_in_order, when_used="json")


@contextmanager
def _without_prebuilt(classes: frozenset[type]) -> Generator[None]:
    """Have pydantic build from the schema that it is given, nested classes included.

    For a class that is complete it takes the serializer and the validator that the class already
    has, and with them the configuration that is to be left out.
    """
    with _prebuilt:
        complete = [cls for cls in classes if cls.__dict__.get("__pydantic_complete__") is True]
        try:
            for cls in complete:
                type.__setattr__(cls, "__pydantic_complete__", False)
            yield
        finally:
            for cls in complete:
                type.__setattr__(cls, "__pydantic_complete__", True)
