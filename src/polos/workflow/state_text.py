"""A state as one text: its values under one key each, to be cut apart where that key stands."""

from collections.abc import Callable, Iterable

from pydantic import BaseModel

from polos.core import delta
from polos.core.delta import Fields

# What stands in front of the first field, and between two (see `ModelSchema.flat_serializer`).
HEAD, _COMMA = rb'{"\u0000":', rb',"\u0000":'
_LARGE = 16_384


class FlatText:
    """Writes states of a class as one text each, if they are as simple as most.

    Of two states with the same text the record is the same.
    """

    def __init__(self, names: tuple[str, ...], to_json: Callable[..., bytes]) -> None:
        self._names = names
        self._to_json = to_json
        empty = dict.fromkeys(names, b"")
        self._more = delta.size(empty) - len(joined(empty.values())) if names else 0

    def exact(self, model: BaseModel) -> bytes | None:
        """Return the text of a state whose values are all of the declared types."""
        if tuple(model.__dict__) == self._names and not model.__pydantic_extra__:
            try:
                return self._to_json(model, round_trip=True, warnings="error")
            except ValueError:
                pass
        return None

    def quick(self, model: BaseModel) -> bytes | None:
        """Return the text at half the cost: whether the types are as declared is not looked at."""
        if tuple(model.__dict__) == self._names and not model.__pydantic_extra__:
            try:
                return self._to_json(model, round_trip=True, warnings=False)
            except ValueError:
                pass
        return None

    def of(self, fields: Fields) -> bytes | None:
        """Return the text that only states with this record have."""
        return joined(fields.values()) if tuple(fields) == self._names else None

    def fields(self, text: bytes) -> Fields | None:
        """Return the record of the states with a text; None if a value has such a key itself."""
        if len(text) < _LARGE:
            texts = text.split(_COMMA)
            texts[0] = texts[0][len(HEAD) :]
            texts[-1] = texts[-1][:-1]
        else:
            texts = _cut_large(text)
        return dict(zip(self._names, texts)) if len(texts) == len(self._names) else None  # noqa: B905

    def size(self, text: bytes) -> int:
        """Return the bytes of the record of the states with a text."""
        return len(text) + self._more


def joined(values: Iterable[bytes]) -> bytes:
    """Return the text of a state that has these values, at least one."""
    return b"%b%b}" % (HEAD, _COMMA.join(values))


def _cut_large(text: bytes) -> list[bytes]:
    """Cut a text apart, slower for many values, but with one copy of a large one, not two."""
    texts: list[bytes] = []
    start, end = len(HEAD), text.find(_COMMA)
    while end >= 0:
        texts.append(text[start:end])
        start = end + len(_COMMA)
        end = text.find(_COMMA, start)
    texts.append(text[start:-1])
    return texts
