"""Typed JSON: a value as readable JSON text beside a descriptor of its types, and back again."""

# The body is what a reader of the execution sees; the descriptor is JSON text, or None where the
# body says it all. Both are part of the journal format. A descriptor D is one of
#
#   null                          the body as it stands
#   "datetime", "tuple", ...      a built-in kind: a key of READERS
#   "module:qualname"             the class loads the body, its own JSON (model, enum by value)
#   {"is": N, ...}                the parts first, then N from them; no "is": a list or a dict
#       "*": D                    every element or value; null stays None
#       "at": [[D, [key, ...]]]   only the elements or values at these indexes or keys
#       "keys": D                 the keys of a dict, described like a list
#       "how": "raw"              fields set without validation, without `__post_init__`
#       "how": "name" | "tuple"   an enum member by its name | a named tuple
#       "tz": zone                with "datetime" and "time": the IANA zone behind the offset
#       "of": D                   with "json", a key that is JSON text itself: what is in it
#
# Rule 1: `decode` returns what was encoded, types included. Not kept: subclasses of str, int, list,
#   dict, datetime and so on (they decay to their base), IANA zones inside pydantic models (they
#   become offsets), private attributes, fields with `exclude=True`, the set of unset fields.
# Rule 2: nothing is imported. A class is one given to `know`, or encoded here, or one of the kinds
#   of `kind_of` that a module in `sys.modules` holds under that very name.
# Rule 3: the same value gives the same text in every process, so sets are sorted.

from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from polos.core.blob import BlobReader, current_reader
from polos.core.codec_classes import Classes, class_of
from polos.core.codec_kinds import LEAST, MOST, Bad, is_plain
from polos.core.codec_read import Reader
from polos.core.codec_write import Values
from polos.core.content import Content
from polos.core.sealed import refers
from polos.core.secret import holds
from polos.errors import EncodeError, SecretInClearError


class Encoded(NamedTuple):
    """What is stored of a value: JSON text, and the descriptor of its types if it needs one."""

    body: str
    type: str | None


_NULL, _TRUE, _FALSE = Encoded("null", None), Encoded("true", None), Encoded("false", None)


class Codec:
    """Encodes and decodes values, and knows the classes that it may decode to."""

    def __init__(self, *, keeps_secrets: bool = False) -> None:
        self.keeps_secrets = keeps_secrets
        """Whether what it encodes is encrypted before it is stored."""
        self.reader: BlobReader | None = None
        """Where the blobs in what it decodes are read from."""
        self._classes = Classes()
        self._reader = Reader(self._classes)
        self._writer = Values(self._classes, self._reader)

    def know(self, annotation: Any) -> None:
        """Remember every class that is reachable in `annotation` and can be decoded to."""
        self._classes.know(annotation)

    def encode(self, value: Any, *, what: str = "result") -> Encoded:
        """Return text and descriptor of `value`; `what` begins the path in an error."""
        kind = class_of(value)
        if value is None:
            return _NULL
        if kind is bool:
            return _TRUE if value else _FALSE
        if kind is int and LEAST < value < MOST:
            return Encoded(repr(value), None)
        if kind is str or kind is float or is_plain(value, 0):
            try:
                return Encoded(to_json(value).decode(), None)
            except ValueError:
                pass  # a lone surrogate: the walk finds its place
        if self._writer.contents:
            self._writer.contents = []
        try:
            text, shape = self._writer.write(value, set())
        except Bad as bad:
            path = what + "".join(reversed(bad.trail))
            raise EncodeError(f"cannot record {path}: {bad.reason}", path) from None
        if not self.keeps_secrets and holds(text):
            raise SecretInClearError(what)
        return Encoded(text, None if shape is None else to_json(shape).decode())

    def demand_secrecy(self, fields: list[str], of: str = "state") -> None:
        """Raise `SecretInClearError` if fields of a state hold secrets that would lie in clear."""
        if fields and not self.keeps_secrets:
            raise SecretInClearError(f"{of} field {fields[0]!r}")

    def take_contents(self) -> list[Content]:
        """Return what is to be stored of the blobs in the value that was encoded last."""
        found = self._writer.contents
        if found:
            self._writer.contents = []
        return found

    def decode(self, body: str, type: str | None, hint: Any = None) -> Any:
        """Return the value: by its descriptor, else by the annotation `hint`, else plain data.

        Raises `UsageError` if its class is found but no longer accepts the data.
        """
        if type is not None:
            if self.reader is not None and refers(body):
                token = current_reader.set(self.reader)
                try:
                    return self._reader.read(body, from_json(type), hint)
                finally:
                    current_reader.reset(token)
            return self._reader.read(body, from_json(type), hint)
        value = from_json(body)
        if hint is None or value is None:
            return value
        return self._reader.plain(body, value, hint)
