"""What JSON holds as it stands, and how the built-in types are written and read."""

import binascii
import pathlib
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic_core import SchemaValidator, core_schema, from_json, to_json

from polos.core.blob import Blob
from polos.core.codec_classes import class_of, name_of
from polos.core.sealed import BLOB
from polos.core.secret import MARK, Secret

# A writer gives the JSON text of a value and its descriptor; the set holds the ids of the
# containers around it.
Writer = Callable[[Any, set[int]], tuple[str, Any]]

DEPTH = 100  # pydantic reads 200 levels, and a model may add some of its own
MOST = 10**4000  # neither Python nor pydantic reads numbers of more than 4,300 digits
LEAST = -MOST


class Bad(Exception):
    """Something cannot be written; `trail` is the path to it, last part first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.trail: list[str] = []


def is_plain(value: Any, depth: int) -> bool:
    """Tell whether `value` is a dict or list that JSON holds and gives back as it is."""
    kind = class_of(value)
    items: Any = value
    if kind is dict:
        for key in items:
            if type(key) is not str:
                return False
        items = items.values()
    elif kind is not list:
        return False
    for item in items:
        kind = class_of(item)
        if kind in _ATOMS or (kind is int and LEAST < item < MOST):
            continue
        if depth >= DEPTH - 1 or not is_plain(item, depth + 1):
            return False
    return True


def _write_none(value: None, seen: set[int]) -> tuple[str, Any]:
    return "null", None


def _write_bool(value: bool, seen: set[int]) -> tuple[str, Any]:
    return ("true" if value else "false"), None


def _write_int(value: int, seen: set[int]) -> tuple[str, Any]:
    if LEAST < value < MOST:
        return int.__repr__(value), None
    return f'"{hex(value)}"', "int"  # there is no limit to hexadecimal digits


def write_str(value: str, seen: set[int]) -> tuple[str, Any]:
    try:
        return to_json(value).decode(), None
    except ValueError:
        spot = next(i for i, char in enumerate(value) if "\ud800" <= char <= "\udfff")
        raise Bad(
            f"character {spot} of the text is the lone surrogate {value[spot]!a}, which JSON "
            "cannot hold; decode the text properly, or record bytes"
        ) from None


def _write_bytes(value: bytes | bytearray | memoryview, seen: set[int]) -> tuple[str, Any]:
    return f'"{binascii.b2a_base64(value, newline=False).decode()}"', "bytes"


def _write_datetime(value: datetime, seen: set[int]) -> tuple[str, Any]:
    return f'"{datetime.isoformat(value)}"', _zoned("datetime", value)


def _write_time(value: time, seen: set[int]) -> tuple[str, Any]:
    return f'"{time.isoformat(value)}"', _zoned("time", value)


def _zoned(name: str, value: datetime | time) -> Any:
    key = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return name if key is None else {"is": name, "tz": key}


def in_zone(value: Any, key: str | None) -> Any:
    """Put the zone back that was written as an offset, if this machine knows it."""
    if key is None:
        return value
    try:
        zone = ZoneInfo(key)
    except (KeyError, ValueError, OSError):
        return value
    if isinstance(value, time):
        return value.replace(tzinfo=zone)
    for fold in (0, 1):
        local = value.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == value.utcoffset():
            return local
    return value.astimezone(zone)


def _as_text(name: str, text: Callable[[Any], str]) -> Writer:
    def write(value: Any, seen: set[int]) -> tuple[str, Any]:
        return write_str(text(value), seen)[0], name

    return write


def refuse(value: Any, seen: set[int]) -> tuple[str, Any]:
    is_class = isinstance(value, type)
    name = name_of(value if is_class else type(value)).removeprefix("builtins:")
    raise Bad(
        f"{'the class' if is_class else 'a value of type'} {name} is not data; expected None, "
        "bool, int, float, str, bytes, a list, tuple, dict or set of such, a date or time, "
        "Decimal, UUID, path, enum, dataclass, msgspec struct or pydantic model; record a list or "
        "dict of what is in it, or an id to find it again"
    )


_ATOMS = frozenset({str, float, bool, type(None)})
_duration = SchemaValidator(core_schema.timedelta_schema())

# In the order in which a subclass looks for the base to decay to, its own method resolution order.
WRITERS: dict[type, Writer] = {
    type(None): _write_none,
    bool: _write_bool,
    int: _write_int,
    float: lambda value, seen: (to_json(float(value)).decode(), None),
    str: write_str,
    bytes: _write_bytes,
    bytearray: _write_bytes,
    memoryview: _write_bytes,
    datetime: _write_datetime,
    date: _as_text("date", date.isoformat),
    time: _write_time,
    timedelta: lambda value, seen: (to_json(value).decode(), "timedelta"),
    Decimal: _as_text("decimal", Decimal.__str__),
    UUID: _as_text("uuid", UUID.__str__),
    pathlib.Path: _as_text("path", pathlib.PurePath.__str__),
    pathlib.PurePosixPath: _as_text("posixpath", pathlib.PurePath.__str__),
    pathlib.PureWindowsPath: _as_text("windowspath", pathlib.PurePath.__str__),
}

READERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda text: int(text, 16),
    "bytes": binascii.a2b_base64,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": _duration.validate_python,
    "decimal": Decimal,
    "uuid": UUID,
    "path": pathlib.Path,
    "posixpath": pathlib.PurePosixPath,
    "windowspath": pathlib.PureWindowsPath,
    "json": from_json,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,  # from pairs
    "blob": lambda marked: Blob.from_record(marked[BLOB]),
    "secret": lambda marked: Secret(marked[MARK]),
}
