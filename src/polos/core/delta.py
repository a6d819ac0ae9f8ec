"""How state is recorded: one JSON text per top-level field, and deltas between two such records."""

# Journal format. A body is JSON text, of one of two kinds.
#
#   {"field": value, ...}                   a snapshot: the whole state
#   [[field, prefix, suffix, text], ...]    a delta against the record before it
#
# Of each changed field a delta keeps how many bytes at its start and its end stayed, and the text
# between them. [field] is a field that is gone, and [[field, ...]] is the new order of all fields,
# written only where it is not the old order with the new fields behind it.
#
# An entry may have a jump as well: a delta against the record of the mark before it. Marks are
# entries with a jump, and snapshots; whoever wants one record reads from the last snapshot on the
# jumps up to it, and the deltas behind the last of them.
#
# Offsets count bytes of UTF-8, so a field has to come back byte for byte: `split` cuts a snapshot
# up, it does not parse it and write it anew.

import functools
import json
import re
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import Any

from pydantic_core import from_json, to_json

Fields = dict[str, bytes]

WHOLE_MAX = 6
"""Values of so many bytes are written whole: looking for what stayed would save nothing."""
# The stretch that is compared at once: a copy of it stays in the processor's cache.
_CHUNK = 65_536
_WORD = 256

_WHITESPACE = re.compile(r"[ \t\n\r]*")
# Only where a value ends matters. `len` is cheaper than a number, and reads one of any length.
_DECODER = json.JSONDecoder(parse_int=len, parse_float=len, strict=False)


def diff(old: Fields, new: Fields) -> str | None:
    """Return the delta that makes `new` of `old`, or None if they are equal."""
    names = list(new)
    moved = list(old) != names
    entries: list[list[Any]] = [[name] for name in old if name not in new] if moved else []
    for name, text in new.items():
        before = old.get(name, b"")
        if before != text:
            entries.append([name, *_cut(before, text)])
    if moved:
        kept = [name for name in old if name in new]
        if kept + [name for name in names if name not in old] != names:
            entries.append([names])
    return to_json(entries).decode() if entries else None


def between(old: Fields, new: Fields, changed: Iterable[str]) -> str:
    """Return the same for records that have the same names in one order, and differ in these."""
    return to_json([[name, *_cut(old[name], new[name])] for name in changed]).decode()


def apply(fields: Fields, body: str) -> Fields:
    """Return the record that `body`, a snapshot or a delta, makes of `fields`."""
    if body.startswith("{"):
        return split(body)
    changed = dict(fields)
    entries: list[list[Any]] = from_json(body)
    for entry in entries:
        if len(entry) == 4:
            name, prefix, suffix, text = entry
            changed[name] = _patched(changed.get(name, b""), prefix, suffix, text)
        elif isinstance(entry[0], str):
            del changed[entry[0]]
        else:
            changed = {name: changed[name] for name in entry[0]}
    return changed


def replay(bodies: Iterable[str]) -> Fields:
    """Return the record that a snapshot and the bodies behind it make.

    The same as applying one after the other, but what changes of a field is gathered before the
    field is put together: a thousand appends to a large one cost little more than one.
    """
    fields: Fields = {}
    hulls: dict[str, _Hull] = {}
    for body in bodies:
        if body.startswith("{"):
            fields = split(body)
            hulls.clear()
            continue
        entries: list[list[Any]] = from_json(body)
        if any(len(entry) == 1 for entry in entries):
            fields = apply(_filled(fields, hulls), body)
            hulls.clear()
            continue
        for name, prefix, suffix, text in entries:
            hull = hulls.get(name)
            if hull is None:
                hulls[name] = _Hull(fields.setdefault(name, b""), prefix, suffix, text)
            else:
                hull.cut(prefix, suffix, text)
    return _filled(fields, hulls)


class _Hull:
    """A field of which a stretch changed, perhaps several times; the rest is not copied."""

    __slots__ = ("_base", "_prefix", "_suffix", "_text")

    def __init__(self, base: bytes, prefix: int, suffix: int, text: str) -> None:
        _belongs(prefix + suffix, len(base))
        self._base = base
        self._prefix = prefix
        self._suffix = suffix
        self._text = bytearray(text, "utf-8")

    def cut(self, prefix: int, suffix: int, text: str) -> None:
        """Change it again: what stays is counted in the field as it is by now."""
        base = self._base
        _belongs(prefix + suffix, self._prefix + len(self._text) + self._suffix)
        changed = self._text  # in place: what of it does not move is not copied
        if suffix < self._suffix:
            changed += base[len(base) - self._suffix : len(base) - suffix]
            self._suffix = suffix
        end = len(changed) - (suffix - self._suffix)
        if prefix >= self._prefix:
            changed[prefix - self._prefix : end] = text.encode()
            return
        if end >= 0:
            changed[:end] = text.encode()
        else:
            changed[:0] = text.encode() + base[self._prefix + end : self._prefix]
        self._prefix = prefix

    def whole(self) -> bytes:
        """Put the field together."""
        base = self._base
        return base[: self._prefix] + self._text + base[len(base) - self._suffix :]


def _filled(fields: Fields, hulls: dict[str, _Hull]) -> Fields:
    return fields | {name: hull.whole() for name, hull in hulls.items()}


def encoded(fields: Fields) -> bytes:
    """Return the whole state as one JSON object, in UTF-8."""
    return b"{%b}" % b",".join([_key(name) + b":" + text for name, text in fields.items()])


def document(fields: Fields) -> str:
    """Return the whole state as one JSON object: the body of a snapshot."""
    return encoded(fields).decode()


def size(fields: Fields) -> int:
    """Return the bytes of `document(fields)`, without building it."""
    return _marks(tuple(fields)) + sum(map(len, fields.values()))


def split(document: str) -> Fields:
    """Return the fields of a JSON object, each with the very bytes it has there.

    Raises `ValueError` if the document is not a JSON object.
    """
    fields: Fields = {}
    at = _expect(document, 0, "{")
    more = not document.startswith("}", at)
    while more:
        name, at = _value(document, at)
        if not isinstance(name, str):
            raise ValueError(f"state is not a JSON object: no field name before {at}")
        start = _expect(document, at, ":")
        _, at = _value(document, start)
        fields[name] = document[start:at].encode()
        at = _skip(document, at)
        more = document.startswith(",", at)
        at = _skip(document, at + 1) if more else at
    at = _expect(document, at, "}")
    if at != len(document):
        raise ValueError(f"state is not one JSON object: it goes on at {at}")
    return fields


@functools.lru_cache(maxsize=4096)
def _marks(names: tuple[str, ...]) -> int:
    # Braces, and a colon and a comma for each field but the last, which has no comma.
    return max(2, 1 + 2 * len(names)) + sum(len(_key(name)) for name in names)


@functools.lru_cache(maxsize=4096)
def _key(name: str) -> bytes:
    return encode_basestring(name).encode()


def _value(document: str, at: int) -> tuple[Any, int]:
    return _DECODER.raw_decode(document, at)


def _skip(document: str, at: int) -> int:
    space = _WHITESPACE.match(document, at)
    return at if space is None else space.end()


def _expect(document: str, at: int, mark: str) -> int:
    """Return where the text goes on after `mark` and the blanks around it."""
    at = _skip(document, at)
    if not document.startswith(mark, at):
        raise ValueError(f"state is not a JSON object: no {mark!r} at {at}")
    return _skip(document, at + 1)


def _belongs(kept: int, size: int) -> None:
    if kept > size:
        raise ValueError("the delta does not belong to this record: it keeps more than there is")


def _patched(old: bytes, prefix: int, suffix: int, text: str) -> bytes:
    if not prefix + suffix:
        return text.encode()
    _belongs(prefix + suffix, len(old))
    return b"%b%b%b" % (old[:prefix], text.encode(), old[len(old) - suffix :])


def _cut(old: bytes, new: bytes) -> tuple[int, int, str]:
    """Return how many bytes stayed at the start and at the end, and the new text between.

    The last stretch is compared as one number: its first bit that differs is told at once.
    """
    if len(new) <= WHOLE_MAX:
        return 0, 0, new.decode()
    size = len(new)
    if size == len(old) <= _WORD:  # then one number tells both ends
        bits = int.from_bytes(old) ^ int.from_bytes(new)
        prefix = size - (bits.bit_length() + 7) // 8
        stop = size - max((bits & -bits).bit_length() - 1, 0) // 8
    else:
        prefix, stop = _bounds(old, new)
    while 0 < prefix < size and new[prefix] & 0xC0 == 0x80:
        prefix -= 1  # not inside of a character
    while stop < size and new[stop] & 0xC0 == 0x80:
        stop += 1
    return prefix, size - stop, new[prefix:stop].decode()


def _bounds(old: bytes, new: bytes) -> tuple[int, int]:
    """Return where in the new text what is new begins and ends, be it inside of characters."""
    most = min(len(old), len(new))
    same = 0 if most <= _WORD else _same_at_start(old, new, most)
    end = min(same + _WORD, most)
    bits = int.from_bytes(old[same:end]) ^ int.from_bytes(new[same:end])
    prefix = end - (bits.bit_length() + 7) // 8
    most -= prefix
    same = 0 if most <= _WORD else _same_at_end(old, new, most)
    end = min(same + _WORD, most)
    one, other = old[len(old) - end : len(old) - same], new[len(new) - end : len(new) - same]
    bits = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return prefix, len(new) - end + (bits.bit_length() + 7) // 8


# Both look at whole stretches, which are compared at the speed of memory, and halve the first one
# that differs. A loop over single bytes would take tens of milliseconds for a megabyte.


def _same_at_start(old: bytes, new: bytes, most: int) -> int:
    """Return a number of bytes that stayed; the first that did not is less than a word behind."""
    same, step = 0, min(_CHUNK, 1 << most.bit_length())
    while step >= _WORD:
        end = min(same + step, most)
        if end > same and new.startswith(old[same:end], same):
            same = end
        else:
            step //= 2
    return same


def _same_at_end(old: bytes, new: bytes, most: int) -> int:
    same, step = 0, min(_CHUNK, 1 << most.bit_length())
    while step >= _WORD:
        end = min(same + step, most)
        stretch = old[len(old) - end : len(old) - same]
        if stretch and new.endswith(stretch, 0, len(new) - same):
            same = end
        else:
            step //= 2
    return same
