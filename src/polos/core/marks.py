"""Secrets and blobs as plain data: their marks, and the descriptor that makes them again."""

from __future__ import annotations

import json
from typing import Any, cast

from polos.core.blob import Blob
from polos.core.sealed import BLOB, refers
from polos.core.secret import MARK, Secret, holds, stands_for


def marked(value: Any) -> Any:
    """Return what pydantic has no JSON for, for a record: `fallback` of `to_json`."""
    if isinstance(value, Secret):
        return {MARK: cast("Secret[Any]", value).reveal()}
    if isinstance(value, Blob):
        return {BLOB: value.stored_record()}
    raise ValueError(f"unable to serialize {type(value).__name__}")


def type_of(body: str) -> str | None:
    """Return the descriptor of JSON text as it is recorded."""
    if not (refers(body) or holds(body)):
        return None
    shape = descriptor(json.loads(body))
    return None if shape is None else json.dumps(shape)


def descriptor(value: Any) -> Any:
    """Return the descriptor (see `polos.core.codec`) of plain data; None if nothing is marked."""
    if isinstance(value, list):
        return _parts(list(enumerate(cast("list[Any]", value))))
    if not isinstance(value, dict):
        return None
    items = cast("dict[str, Any]", value)
    if stands_for(items):
        parts = _parts([(MARK, items[MARK])])
        return "secret" if parts is None else {"is": "secret", **parts}
    if items.keys() == {BLOB}:
        return "blob" if Blob.is_record(items[BLOB]) else None
    return _parts(list(items.items()))


def _parts(items: list[tuple[Any, Any]]) -> dict[str, Any] | None:
    found = [[shape, [key]] for key, item in items if (shape := descriptor(item)) is not None]
    return {"at": found} if found else None
