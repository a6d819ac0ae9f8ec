"""A state as one text: its values under one key each, to be cut apart where that key stands."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic_core import from_json

from polos.core import ids

# What stands in front of the first field, and between two (see `ModelSchema.flat_serializer`).
HEAD, _COMMA = rb'{"\u0000":', rb',"\u0000":'
_LARGE = 16_384
_REPLACED = "\N{REPLACEMENT CHARACTER}".encode()


def joined(values: Iterable[bytes]) -> bytes:
    """Return the text of a state that has these values, at least one."""
    return b"%b%b}" % (HEAD, _COMMA.join(values))


def cut(text: bytes) -> list[bytes]:
    """Return the values of a state; there are more of them if one has such a key itself."""
    return _cut(text) if len(text) < _LARGE else _cut_large(text)


def _cut(text: bytes) -> list[bytes]:
    texts = text.split(_COMMA)
    texts[0] = texts[0][len(HEAD) :]
    texts[-1] = texts[-1][:-1]
    return texts


def _cut_large(text: bytes) -> list[bytes]:
    """Do the same, slower for many values, but with one copy of a large one instead of two."""
    texts: list[bytes] = []
    start, end = len(HEAD), text.find(_COMMA)
    while end >= 0:
        texts.append(text[start:end])
        start = end + len(_COMMA)
        end = text.find(_COMMA, start)
    texts.append(text[start:-1])
    return texts


def proven(text: bytes, value: Any) -> bytes:
    """Return JSON that was made of a value; ValueError if a key in it was not what it is there.

    What writes JSON refuses text with a lone surrogate, but in keys it puts U+FFFD for it.
    """
    if _REPLACED in text and _has_lone_key(value):
        raise ValueError("a key has a lone surrogate, which JSON cannot hold; decode it properly")
    return text


def _has_lone_key(value: Any) -> bool:
    if isinstance(value, BaseModel):
        return _has_lone_key(value.__dict__) or _has_lone_key(value.__pydantic_extra__)
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return any(
            (isinstance(key, str) and not ids.is_unicode(key)) or _has_lone_key(each)
            for key, each in items
        )
    if isinstance(value, list | tuple | deque):
        return any(map(_has_lone_key, cast("Iterable[Any]", value)))
    fields = getattr(value, "__dataclass_fields__", ())
    return any(_has_lone_key(getattr(value, name, None)) for name in fields)


def appended(old: bytes | None, new: bytes | None) -> list[Any] | None:
    """Return the items that an array has more than another, if it has them behind those."""
    if not old or not new or old == b"[]" or not new.startswith(old[:-1] + b","):
        return None
    return from_json(b"[" + new[len(old) :])
