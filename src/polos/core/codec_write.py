"""Writes values of every kind, by one writer for each class."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from polos.core.blob import Blob
from polos.core.codec_classes import (
    CLASSES_MAX,
    GONE,
    MISFITS,
    Classes,
    class_of,
    fields_of,
    kind_of,
    name_of,
)
from polos.core.codec_kinds import DEPTH, WRITERS, Bad, Writer, refuse, write_str
from polos.core.codec_read import Reader
from polos.core.codec_trust import Survey, is_nan, is_same
from polos.core.content import Content
from polos.core.sealed import BLOB
from polos.core.secret import MARK, Secret
from polos.errors import UsageError

_MANY = 20  # a list of as many models is worth a serializer of its own


class Values:
    """Writes values of every kind; keeps one writer per class."""

    def __init__(self, classes: Classes, reader: "Reader") -> None:
        self._classes = classes
        self._reader = reader
        self._makers: dict[str, Callable[[Any], Writer]] = {
            "enum": self._enum,
            "model": self._model,
            "dataclass": self._dataclass,
            "struct": self._struct,
            "namedtuple": self._namedtuple,
        }
        self._builtin: dict[type, Writer] = {
            **WRITERS,
            list: self._list,
            tuple: self._tuple,
            dict: self._dict,
            set: self._set,
            frozenset: self._set,
            Blob: self._blob,
            Secret: self._secret,
        }
        self._writers = dict(self._builtin)
        self._surveys: dict[type, Survey] = {}
        self.contents: list[Content] = []
        """What the blobs hold that were written and are not stored yet."""

    def write(self, value: Any, seen: set[int]) -> tuple[str, Any]:
        cls = class_of(value)
        return (self._writers.get(cls) or self._writer(cls))(value, seen)

    def _writer(self, cls: type) -> Writer:
        if len(self._writers) > CLASSES_MAX:
            self._writers = dict(self._builtin)
            self._surveys.clear()
            self._classes.forget()
        kind = kind_of(cls)
        bases = (self._builtin[base] for base in cls.__mro__ if base in self._builtin)
        self._writers[cls] = self._makers[kind](cls) if kind else next(bases, refuse)
        return self._writers[cls]

    def _each(
        self, keys: Iterable[Any], values: Iterable[Any], seen: set[int], part: str
    ) -> tuple[list[str], list[Any]]:
        """Write `values`; `part` makes the path to one that cannot be written from its key."""
        texts: list[str] = []
        shapes: list[Any] = []
        writers = self._writers
        for key, value in zip(keys, values, strict=True):
            cls = class_of(value)
            try:
                text, shape = (writers.get(cls) or self._writer(cls))(value, seen)
            except Bad as bad:
                bad.trail.append(part.format(key))
                raise
            texts.append(text)
            shapes.append(shape)
        return texts, shapes

    def _elements(self, value: Sequence[Any], seen: set[int]) -> tuple[str, dict[str, Any]]:
        if len(value) >= _MANY:
            survey = self._surveys.get(class_of(value[0]))
            text = survey.dump_all(value) if survey is not None else None
            if survey is not None and text is not None:
                self._classes.add(survey.name, survey.cls)
                return text, {"*": survey.name}
        _enter(value, seen)
        texts, shapes = self._each(range(len(value)), value, seen, "[{}]")
        seen.discard(id(value))
        return f"[{','.join(texts)}]", _joined(range(len(texts)), texts, shapes)

    def _list(self, value: list[Any], seen: set[int]) -> tuple[str, Any]:
        text, shape = self._elements(value, seen)
        return text, shape or None

    def _tuple(self, value: tuple[Any, ...], seen: set[int]) -> tuple[str, Any]:
        text, shape = self._elements(value, seen)
        return text, {"is": "tuple", **shape} if shape else "tuple"

    def _namedtuple(self, cls: type) -> Writer:
        name = name_of(cls)

        def write(value: tuple[Any, ...], seen: set[int]) -> tuple[str, Any]:
            self._classes.add(name, cls)
            text, shape = self._elements(value, seen)
            return text, {"is": name, "how": "tuple", **shape}

        return write

    def _set(self, value: set[Any] | frozenset[Any], seen: set[int]) -> tuple[str, Any]:
        name = "frozenset" if isinstance(value, frozenset) else "set"
        items = list(value)
        if {type(item) for item in items} in ({int}, {str}):
            items.sort()
        _enter(value, seen)
        pairs = list(zip(*self._each(items, items, seen, "[{!r:.60}]"), strict=True))
        seen.discard(id(value))
        if {type(item) for item in items} not in ({int}, {str}):
            pairs.sort(key=lambda pair: (pair[0], to_json(pair[1])))
        texts, shapes = [text for text, _ in pairs], [shape for _, shape in pairs]
        shape = _joined(range(len(texts)), texts, shapes)
        return f"[{','.join(texts)}]", {"is": name, **shape} if shape else name

    def _dict(self, value: dict[Any, Any], seen: set[int]) -> tuple[str, Any]:
        _enter(value, seen)
        labels, keys = self._labels(value, seen)
        if len(set(labels)) == len(labels):
            names, _ = self._each(value, labels, seen, "[{!r:.60}]")
            texts, shapes = self._each(value, value.values(), seen, "[{!r:.60}]")
            text, shape = _braces(names, texts), _joined(labels, texts, shapes)
            shape |= {"keys": keys} if keys else {}
        else:  # as in {"a": 1, Path("a"): 2}
            text, shape = self._elements([[key, item] for key, item in value.items()], seen)
            shape["is"] = "dict"
        seen.discard(id(value))
        return text, shape or None

    def _blob(self, value: Blob, seen: set[int]) -> tuple[str, Any]:
        if value.content is not None:
            self.contents.append(value.content)
        return to_json({BLOB: value.record()}).decode(), "blob"

    def _secret(self, value: Secret[Any], seen: set[int]) -> tuple[str, Any]:
        text, shape = self.write(value.reveal(), seen)
        parts = _joined([MARK], [text], [shape])
        return f'{{"{MARK}":{text}}}', {"is": "secret", **parts} if parts else "secret"

    def _labels(self, value: dict[Any, Any], seen: set[int]) -> tuple[list[str], dict[str, Any]]:
        """Return the keys of `value` as text, and the descriptor that makes them again."""
        if all(type(key) is str for key in value):
            return list(value), {}
        texts, shapes = self._each(value, value, seen, "[{!r:.60}]")
        for index, (text, shape) in enumerate(zip(texts, shapes, strict=True)):
            if text.startswith('"'):
                texts[index] = from_json(text)
            else:
                shapes[index] = "json" if shape is None else {"is": "json", "of": shape}
        return texts, _joined(range(len(texts)), [""] * len(texts), shapes)

    def _enum(self, cls: type[Enum]) -> Writer:
        name = name_of(cls)

        def write(value: Enum, seen: set[int]) -> tuple[str, Any]:
            self._classes.add(name, cls)
            key = value._value_  # a class may define a `value` of its own
            # A float may be NaN, which finds nothing; for other values there may be no JSON.
            if type(key) in (int, str, bool, float) and not is_nan(key) and cls(key) is value:
                return self.write(key, seen)[0], name
            return write_str(value.name, seen)[0], {"is": name, "how": "name"}

        return write

    def _model(self, cls: type[BaseModel]) -> Writer:
        survey = self._surveys[cls] = Survey(cls)
        names = {name: write_str(name, set())[0] for name in fields_of(cls) or ()}

        def write(value: BaseModel, seen: set[int]) -> tuple[str, Any]:
            self._classes.add(survey.name, cls)
            text = survey.dump(value, len(seen))
            if text is not None:
                return text, survey.name
            state = {name: value.__dict__[name] for name in names if name in value.__dict__}
            extra = value.__pydantic_extra__ or {}
            quoted = names | {name: write_str(name, seen)[0] for name in extra}
            return self._object(value, survey.name, state | extra, quoted, seen, exact=False)

        return write

    def _dataclass(self, cls: Any) -> Writer:
        fields = dataclasses.fields(cls)
        # A generated `__init__` that does nothing but set every field needs no proof.
        exact = (
            "__dataclass_params__" in vars(cls)
            and cls.__dataclass_params__.init
            and not hasattr(cls, "__post_init__")
            and not hasattr(cls, "__pydantic_fields__")
            and len(cls.__dataclass_fields__) == len(fields)
            and all(field.init for field in fields)
        )
        return self._record(cls, exact=exact)

    def _struct(self, cls: Any) -> Writer:
        return self._record(cls, exact=not hasattr(cls, "__post_init__"))

    def _record(self, cls: type, *, exact: bool) -> Writer:
        name = name_of(cls)
        names = {field: write_str(field, set())[0] for field in fields_of(cls) or ()}
        unset = getattr(sys.modules.get("msgspec"), "UNSET", GONE)

        def write(value: Any, seen: set[int]) -> tuple[str, Any]:
            self._classes.add(name, cls)
            state: dict[str, Any] = {}
            for field in names:
                item = getattr(value, field, GONE)
                if item is not GONE and item is not unset:
                    state[field] = item
            return self._object(value, name, state, names, seen, exact=exact)

        return write

    def _object(
        self,
        value: Any,
        name: str,
        state: dict[str, Any],
        quoted: dict[str, str],
        seen: set[int],
        *,
        exact: bool,
    ) -> tuple[str, Any]:
        """Write an object by its fields; unless that is `exact`, prove that it comes back."""
        _enter(value, seen)
        texts, shapes = self._each(state, state.values(), seen, ".{}")
        seen.discard(id(value))
        text = _braces([quoted[field] for field in state], texts)
        shape = _joined(list(state), texts, shapes)
        shape["is"] = name
        if exact:
            return text, shape
        try:
            if is_same(value, self._reader.restore(from_json(text), shape, []), len(seen)):
                return text, shape
        except (UsageError, *MISFITS):
            pass
        shape["how"] = "raw"
        try:
            self._reader.restore(from_json(text), shape, [])
        except (UsageError, *MISFITS) as error:
            raise Bad(f"{name} cannot be made from its own fields: {error}") from error
        return text, shape


def _enter(value: Any, seen: set[int]) -> None:
    if id(value) in seen:
        raise Bad("it contains itself; record an id in place of the inner one")
    if len(seen) >= DEPTH:
        raise Bad(f"it is nested deeper than {DEPTH} levels; flatten it, or record it as text")
    seen.add(id(value))


def _braces(names: list[str], texts: list[str]) -> str:
    return "{" + ",".join([f"{name}:{text}" for name, text in zip(names, texts, strict=True)]) + "}"


def _joined(keys: Sequence[Any], texts: Sequence[str], shapes: list[Any]) -> dict[str, Any]:
    """Return the descriptor of parts: one for all where they agree, else grouped by descriptor."""
    first = next((shape for shape in shapes if shape is not None), None)
    if first is None:
        return {}
    # Not where null stands for anything but None, as in a RootModel of None.
    pairs = zip(texts, shapes, strict=True)
    if all(shape is None if text == "null" else shape == first for text, shape in pairs):
        return {"*": first}
    groups: dict[Any, tuple[Any, list[Any]]] = {}
    for key, shape in zip(keys, shapes, strict=True):
        if shape is not None:
            group = shape if isinstance(shape, str) else to_json(shape)
            groups.setdefault(group, (shape, []))[1].append(key)
    return {"at": list(groups.values())}
