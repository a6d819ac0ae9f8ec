"""Which fields of a state schema could not be read back, and what JSON does not show of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from pydantic import BaseModel, ValidationError

from polos.core.blob import serialize_blob
from polos.core.merge import Path, Sort
from polos.core.secret import MISFIT, serialize_secret
from polos.workflow.model_schema import ModelSchema, Node, inner_nodes, nodes

# A place in the JSON of a state; None stands for any key or index.
Pattern = tuple[str | int | None, ...]
# What a value looks like in JSON: "string", "array" or "object" and the names in it, where they are
# known. None if it is unlike all others.
Form = tuple[str, frozenset[str] | None] | None

_REFUSED = {
    "callable": "a function cannot be written as JSON; keep its name and look it up",
    "is-subclass": "a class cannot be written as JSON; keep its name and look it up",
    "generator": "an iterator is used up by writing it; use a list",
}
_INSTANCE = (
    "JSON does not hold objects of {cls}; use a model or a dataclass, or give the type a "
    "serializer and a validator"
)
_EXCLUDED = (
    "the value is excluded from JSON and would be lost; drop exclude=True, or make it a private "
    "attribute"
)
_SECRET = "a secret is masked in JSON and would be lost; declare it as polos.Secret[str]"
_INIT_ONLY = "the dataclass does not keep the value; make it a field"
_NO_FIELDS = (
    "BaseModel has no fields, and those of its subclasses are not written; name the classes"
)
_AS_ANY = "subclasses are written with more than is read; use a union of the classes instead"
_KEYS = "JSON has no keys of type {kind}; use strings, or a list of pairs"
_MEMBERS = "JSON does not hold all values of {cls}; give its members strings or integers"
_SERIALIZER = "it cannot be told whether what its serializer writes can be read back as it was"
_ALIKE = (
    "{one} and {other} look alike in JSON, so that one may come back as the other; use one of "
    "them, or a discriminator"
)

_KEY_TYPES_REFUSED = frozenset(
    {
        *("none", "nullable", "complex", "tuple", "list", "set", "frozenset", "dict", "deque"),
        *("model", "dataclass", "typed-dict"),
    }
)
# What two members of a union look like in JSON, if it is not a thing of their own.
_STRINGS = frozenset(
    {
        *("str", "bytes", "date", "time", "datetime", "timedelta", "decimal", "uuid", "complex"),
        *("url", "multi-host-url"),
    }
)
_ARRAYS = frozenset({"list", "tuple", "set", "frozenset", "deque"})
_OBJECTS = frozenset({"dict", "typed-dict", "model", "dataclass"})
_PLAIN = (str, int, float, type(None))
_JSON_VALUES: tuple[Any, ...] = ("", 0, 0.5, None, [], {})
LOOKS_MAX = 200
"""So many definitions are looked at in one field wherever they are met, all others once."""
_MANY = frozenset({"list", "set", "frozenset", "deque", "generator"})


@dataclass
class Findings:
    """What was found; texts are `path: reason; remedy`."""

    refused: list[str] = field(default_factory=list[str])
    doubts: list[str] = field(default_factory=list[str])
    unproven: dict[str, str] = field(default_factory=dict[str, str])
    """Doubts about top-level fields that a default value may settle."""
    secrets: list[str] = field(default_factory=list[str])
    """Where the schema has a `polos.Secret`."""
    has_blobs: bool = False
    sorts: list[tuple[Pattern, Sort]] = field(default_factory=list[tuple[Pattern, Sort]])
    arrays: list[Pattern] = field(default_factory=list[Pattern])
    """Where arrays may be that are no sets."""

    def sort(self, path: Path) -> Sort:
        """Return what the change at a place of the state has to know of it (`core.merge`)."""
        for pattern, sort in self.sorts:
            # Names forbid adding at and above them: in a new value nobody looks for them.
            fits = len(pattern) >= len(path) if sort == "names" else len(pattern) == len(path)
            if not fits or not _covers(pattern, path):
                continue
            if sort == "members" and self._may_be_array(path, pattern):
                continue
            return sort
        return ""

    def _may_be_array(self, path: Path, members: Pattern) -> bool:
        """Tell whether what is a set by a pattern may be a list.

        It may by another choice of a union, and it is one if that pattern is of any other key.
        """
        vague = [key is None for key in members]
        return any(
            len(each) == len(path)
            and _covers(each, path)
            and [key is None for key in each] <= vague
            for each in self.arrays
        )


def examine(schema: ModelSchema) -> Findings:
    """Look at all fields of a state schema, and at all that is in them."""
    findings = Findings()
    for name, node in schema.fields.items():
        _Examination(schema.definitions, findings).look(node, (name,))
    extras = schema.model["schema"].get("extras_schema")
    if extras is not None:
        _Examination(schema.definitions, findings).look(extras, (None,))
    return findings


class _Examination:
    """The walk through one field, along the nodes that reading it back goes through."""

    def __init__(self, definitions: dict[str, Node], findings: Findings) -> None:
        self._definitions = definitions
        self._found = findings
        self._around: list[str] = []
        """The definitions that it is in: some are in themselves."""
        self._seen: set[str] = set()
        self._looks = 0

    def look(self, node: Node, path: Pattern) -> None:
        reason = _reason_to_refuse(node)
        if _serializer(node) is serialize_secret:
            self._found.secrets.append(_spell(path))
        elif _serializer(node) is serialize_blob:
            self._found.has_blobs = True
        elif reason is not None:
            self._refuse(path, reason)
        elif _has_own_serializer(node):
            text = f"{_spell(path)}: {_SERIALIZER}"
            if len(path) == 1:
                self._found.unproven[str(path[0])] = text
            else:
                self._found.doubts.append(text)
        elif node["type"] == "definition-ref":
            ref: str = node["schema_ref"]
            often = self._looks > LOOKS_MAX and ref in self._seen
            if ref not in self._around and not often:
                self._seen.add(ref)
                self._looks += 1
                self._around.append(ref)
                self.look(self._definitions[ref], path)
                self._around.pop()
        else:
            self._look_at_values(node, path)
            for part, key in _inside(node):
                self.look(part, path if key is _SAME else (*path, key))

    def _look_at_values(self, node: Node, path: Pattern) -> None:
        kind: str = node["type"]
        if kind == "dict" and "keys_schema" in node:
            self._look_at_keys(node["keys_schema"], path)
        elif kind == "union":
            self._look_at_choices(node, path, self._form)
        elif kind in ("set", "frozenset"):
            self._found.sorts.append((path, "members"))
        elif kind in _ARRAYS or kind == "any":
            self._found.arrays.append(path)
        elif kind == "decimal":
            self._found.sorts.append((path, "decimal"))
        elif kind in ("enum", "literal") and not _all_are(node, str):
            self._found.sorts.append((path, "names"))

    def _look_at_keys(self, node: Node, path: Pattern) -> None:
        bare = self._bare(node)
        kind: str = bare["type"]
        if (
            kind in _KEY_TYPES_REFUSED
            or (kind == "literal" and not _all_are(bare, str))
            or (kind == "enum" and not _all_are(bare, str, int))
        ):
            self._refuse(path, _KEYS.format(kind=_name(bare)))
        elif kind == "union":
            self._look_at_choices(bare, path, lambda _: ("string", None))

    def _look_at_choices(self, union: Node, path: Pattern, form: Callable[[Node], Form]) -> None:
        # A choice may have a label.
        choices: list[Any] = [each for choice in union["choices"] for each in nodes(choice)]
        bare = [self._bare(choice) for choice in choices]
        for one, other in combinations(bare, 2):
            if _alike(form(one), form(other)):
                text = _ALIKE.format(one=_name(one), other=_name(other))
                self._found.doubts.append(f"{_spell(path)}: {text}")

    def _form(self, bare: Node) -> Form:
        """Return what the JSON of a value looks like: its kind, and the names in an object."""
        kind: str = bare["type"]
        if bare.get("root_model"):
            return self._form(self._bare(bare["schema"]))
        if kind in _STRINGS or (kind == "enum" and _all_are(bare, str)):
            return "string", None
        if kind in _ARRAYS:
            return "array", None
        if kind not in _OBJECTS:
            return None
        while "fields" not in bare and "schema" in bare:
            bare = bare["schema"]
        fields: Any = bare.get("fields")
        if isinstance(fields, list):
            # Those of a dataclass are names.
            fields = [each if isinstance(each, str) else each["name"] for each in bare["fields"]]
        return "object", None if fields is None else frozenset(fields)

    def _bare(self, node: Node) -> Node:
        """Return the node behind defaults, functions and references."""
        while True:
            kind: str = node["type"]
            if kind == "definition-ref":
                node = self._definitions[node["schema_ref"]]
            elif "schema" in node and (kind == "default" or kind.startswith("function-")):
                node = node["schema"]
            else:
                return node

    def _refuse(self, path: Pattern, reason: str) -> None:
        self._found.refused.append(f"{_spell(path)}: {reason}")


_SAME: Any = object()


def _covers(pattern: Pattern, path: Path) -> bool:
    """Tell whether a path leads to where a pattern says, or above it."""
    return all(each is None or each == key for each, key in zip(pattern, path, strict=False))


def _inside(node: Node) -> Iterator[tuple[Node, Any]]:
    """Yield the nodes of the values in a node's value, with their keys; `_SAME` is the value."""
    kind: str = node["type"]
    if kind == "json-or-python":
        yield node["json_schema"], _SAME
    elif kind == "lax-or-strict":
        yield node["lax_schema"], _SAME
    elif kind in _MANY:
        yield from ((node[key], None) for key in ("items_schema",) if key in node)
    elif kind == "dict":
        yield from ((node[key], None) for key in ("values_schema",) if key in node)
    elif kind == "tuple":
        anywhere = "variadic_item_index" in node
        for index, item in enumerate(node["items_schema"]):
            yield item, None if anywhere else index
    elif kind in ("model-fields", "typed-dict"):
        yield from ((each, name) for name, each in node["fields"].items())
        yield from ((node[key], None) for key in ("extras_schema",) if key in node)
    elif kind == "dataclass-args":
        yield from ((each, each["name"]) for each in node["fields"])
    elif kind == "arguments":
        for index, each in enumerate(node["arguments_schema"]):
            yield each["schema"], index
    elif kind != "definitions":
        yield from ((each, _SAME) for each in inner_nodes(node))


def _reason_to_refuse(node: Node) -> str | None:
    if node.get("serialization_exclude"):
        return _EXCLUDED
    if node.get("init_only"):
        return _INIT_ONLY
    if _is_secret(node):
        return _SECRET
    if _is_any(node):
        return _AS_ANY
    return None if _has_own_serializer(node) else _reason_by_type(node)


def _reason_by_type(node: Node) -> str | None:
    kind: str = node["type"]
    if kind == "model" and node["cls"] is BaseModel:
        return _NO_FIELDS
    if kind == "is-instance" and not any(isinstance(each, node["cls"]) for each in _JSON_VALUES):
        return _INSTANCE.format(cls=_name(node))
    if kind == "enum" and not _all_are(node, *_PLAIN):
        return _MEMBERS.format(cls=_name(node))
    return _REFUSED.get(kind)


def _has_own_serializer(node: Node) -> bool:
    function = _serializer(node)
    module: str = getattr(function, "__module__", None) or ""
    return function is not None and module.split(".", maxsplit=1)[0] not in ("pydantic", "polos")


def _is_secret(node: Node) -> bool:
    # The schema of a secret has no other sign of being one.
    name: str = getattr(_serializer(node), "__qualname__", "")
    return name.startswith("_serialize_secret")


def _is_any(node: Node) -> bool:
    """Tell whether a value is written as what it is, not as what it is declared to be."""
    serialization: Node = node.get("serialization") or {}
    inner: Node = serialization.get("schema") or serialization
    return inner.get("type") == "any"


def _serializer(node: Node) -> Any:
    serialization: Node = node.get("serialization") or {}
    return serialization.get("function")


def _all_are(node: Node, *kinds: type) -> bool:
    """Tell whether all values of an enumeration or of a literal are of these types."""
    values = node["expected"] if "expected" in node else [each.value for each in node["members"]]
    return all(isinstance(each, kinds) for each in values)


def _alike(one: Form, other: Form) -> bool:
    if one is None or other is None or one[0] != other[0]:
        return False
    return one[1] is None or other[1] is None or one[1] == other[1]


def _name(node: Node) -> str:
    return str(getattr(node.get("cls"), "__name__", node["type"]))


def _spell(path: Pattern) -> str:
    text = ""
    for key in path:
        text += "[]" if key is None else f"[{key}]" if isinstance(key, int) else f".{key}"
    return text.removeprefix(".")


def spelled(error: ValidationError, *place: str, hidden: bool = False) -> str:
    """Return a line for each mistake: where, what, and the value, or its type if it is hidden.

    With a `place` it is about the one item of a list, which is at that place.
    """
    lines: list[str] = []
    for each in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, [*place, *each["loc"][len(place) :]])) or "state"
        if each["type"] == "extra_forbidden":
            lines.append(f"\n  {where}: the schema has no such field")
            continue
        value = type(each["input"]).__name__ if hidden else repr(each["input"])
        shown = value if len(value) <= 60 else f"{value[:57]}..."
        got = "" if each["type"] in ("missing", MISFIT) else f", not {shown}"
        lines.append(f"\n  {where}: {each['msg']}{got}")
    return "".join(lines)
