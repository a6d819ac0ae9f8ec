"""Identifiers, and values that are computed from them so that losing their record is harmless."""

from __future__ import annotations

import hashlib
import re
import secrets

FORM = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""Pattern of an id as it is made."""
_ID = re.compile(FORM, re.IGNORECASE)


def new_id(now_us: int) -> str:
    """Return a UUIDv7 (RFC 9562 §5.7) as lower-case text; later ids sort after earlier ones.

    `now_us` is in microseconds; the part below a millisecond goes into `rand_a`, so that ids of
    one process keep their order within a millisecond.
    """
    millis, micros = divmod(now_us, 1000)
    value = (millis & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (micros << 2 & 0xFFF) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def first_id(now_us: int) -> str:
    """Return the lowest text that an id of this moment or a later one can be."""
    text = f"{now_us // 1000 & 0xFFFF_FFFF_FFFF:012x}"
    return f"{text[:8]}-{text[8:]}"


def is_id(text: str) -> bool:
    """Say whether a text has the form of an execution's id."""
    return _ID.fullmatch(text) is not None


def is_storable(text: str) -> bool:
    """Say whether every store takes a text as a name: no lone surrogate, and no NUL."""
    return "\0" not in text and is_unicode(text)


def is_unicode(text: str) -> bool:
    """Say whether a text has a UTF-8 form: one with a lone surrogate has none."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _digest(execution_id: str, key: str, purpose: str) -> bytes:
    return hashlib.blake2b(
        f"{execution_id}\n{key}".encode(), digest_size=16, person=purpose.encode()
    ).digest()


def identity(execution_id: str, generation: int) -> str:
    """Return what the keys of a run are derived from: each generation has its own."""
    return f"{execution_id}/{generation}" if generation else execution_id


def derived_uuid(execution_id: str, key: str) -> str:
    """Return the UUID (version 8, RFC 9562 §5.8) of `ctx.step.uuid(key)`: always the same."""
    raw = bytearray(_digest(execution_id, key, "uuid"))
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def derived_random(execution_id: str, key: str) -> float:
    """Return the number in [0, 1) of `ctx.step.random(key)`: always the same."""
    return (int.from_bytes(_digest(execution_id, key, "random")[:8], "big") >> 11) / (1 << 53)


def idempotency_key(execution_id: str, key: str) -> str:
    """Return the key that names a step to the outside: the same in every attempt."""
    return _digest(execution_id, key, "effect").hex()
