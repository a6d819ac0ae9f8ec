"""How a stored text says that it is encrypted, or lies elsewhere as a blob.

Both are JSON of the same kind, object or array, as what they stand for. A blank behind the first
bracket, which no writer of values leaves, tells them from data that only looks like them.
"""

from __future__ import annotations

import json
import re
from typing import Literal

from polos.core.model import Failure
from polos.errors import EncryptionKeyError

Word = Literal["$sealed", "$spilled"]

BLOB = "$blob"
"""The only key of the JSON object that stands for a `Blob` in a value."""
BLOB_SIGN = f'"{BLOB}":'
"""Stands in JSON text that may refer to blobs."""
_REFERENCE = re.compile(rf'"{re.escape(BLOB)}": ?\{{"hash": ?"([0-9a-f]{{64}})"')
_FORMS = {word: (f'{{ "{word}":"', '"}', f'[ "{word}","', '"]') for word in ("$sealed", "$spilled")}
_NO_KEY = (
    "a stored value is encrypted, and this client has no key that opens it; give it "
    "codec=EncryptionCodec(keys=[...]), or set POLOS_ENCRYPTION_KEYS"
)


def wrap(word: Word, content: str, of: str) -> str:
    """Return the text that is stored in place of `of`; `content` needs no escapes."""
    head, tail, array_head, array_tail = _FORMS[word]
    if of.startswith("["):
        return f"{array_head}{content}{array_tail}"
    return f"{head}{content}{tail}"


def unwrap(word: Word, text: str) -> str | None:
    """Return what was wrapped, or None if the text stands for itself."""
    head, tail, array_head, array_tail = _FORMS[word]
    if text.startswith(head):
        return text[len(head) : -len(tail)]
    return text[len(array_head) : -len(array_tail)] if text.startswith(array_head) else None


def wrap_failure(failure: Failure, content: str) -> str:
    """Return a stored failure that says no more than what the store asks of it: who is to blame."""
    body: dict[str, object] = {"type": failure.type, "message": wrap("$sealed", content, "")}
    if failure.step_key is not None:
        body["step_key"] = failure.step_key
    if "step_keys" in failure.details:
        body["details"] = {"step_keys": failure.details["step_keys"]}
    return json.dumps(body, separators=(",", ":"))


def unwrap_failure(text: str) -> str | None:
    """Return what `wrap_failure` wrapped, or None."""
    if "$sealed" not in text:
        return None
    message = json.loads(text).get("message")
    return unwrap("$sealed", message) if isinstance(message, str) else None


def is_sealed(text: str | None) -> bool:
    """Say whether a text of a record is still encrypted, or apart and encrypted there."""
    if text is None or ("$sealed" not in text[:200] and "$spilled" not in text[:20]):
        return False
    return (
        unwrap("$sealed", text) is not None
        or unwrap("$spilled", text) is not None
        or (text.startswith('{"type":') and unwrap_failure(text) is not None)
    )


def demand_open(*texts: str | None) -> None:
    """Raise `EncryptionKeyError` if one of the texts is still encrypted."""
    if any(is_sealed(text) for text in texts):
        raise EncryptionKeyError(_NO_KEY)


def refers(text: str) -> bool:
    """Say whether JSON text may refer to blobs."""
    return BLOB_SIGN in text


def references(text: str) -> set[str]:
    """Return the hashes of the blobs that JSON text refers to."""
    return set(_REFERENCE.findall(text)) if BLOB_SIGN in text else set()
