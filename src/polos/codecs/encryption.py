"""Encryption at rest: AES-256-GCM under the first of several keys, readable with any of them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from polos.errors import EncryptionKeyError, UsageError

# What is stored: format, key id, salt, nonce, and the text with its tag behind it.
_FORMAT = b"\x01"
_ID, _SALT, _NONCE, _TAG = 4, 16, 12, 16
_HEAD = 1 + _ID + _SALT
_LEAST = _HEAD + _NONCE + _TAG
_CACHED = 1000
KEY_BYTES = 32


class EncryptionCodec:
    """Encrypts payloads, results, step outputs, errors and state with AES-256-GCM.

    `keys` are 32 random bytes each, as bytes or in base64 (`generate_key()`, or 32 bytes of
    `openssl rand -base64 32`). The first encrypts, all decrypt: to rotate, put the new key in front
    and keep the old ones until `polos db rekey` has rewritten what they encrypted. Needs
    `pip install 'polos[crypto]'`.
    """

    def __init__(self, keys: Sequence[bytes | str] | bytes | str) -> None:
        try:
            from polos.codecs import aesgcm
        except ImportError as error:
            raise UsageError(
                "encryption needs the extra: pip install 'polos[crypto]' (cryptography is not "
                "installed)"
            ) from error
        self._aesgcm: Any = aesgcm
        given = [keys] if isinstance(keys, bytes | str) else list(keys)
        if not given:
            raise UsageError("EncryptionCodec(keys=[]): expected one key at least")
        self._keys = {_key_id(key): key for key in map(_key, given)}
        self._current = next(iter(self._keys))
        # A key of its own for each process: so many random nonces of one key do not meet.
        self._salt = os.urandom(_SALT)
        self._ciphers: OrderedDict[bytes, Any] = OrderedDict()

    def __repr__(self) -> str:
        return f"EncryptionCodec(key ids: {', '.join(self.key_ids)})"

    @property
    def key_ids(self) -> list[str]:
        """The ids of the keys, which are no secret: the one that encrypts first."""
        return [each.hex() for each in self._keys]

    def encode(self, data: bytes) -> bytes:
        """See `PayloadCodec`."""
        head = _FORMAT + self._current + self._salt
        nonce = os.urandom(_NONCE)
        return head + nonce + self._cipher(head).encrypt(nonce, data, head)

    def decode(self, data: bytes) -> bytes:
        """See `PayloadCodec`."""
        if data[:1] != _FORMAT or len(data) < _LEAST:
            raise EncryptionKeyError(
                "a stored value is not in the format of EncryptionCodec; it was written by another "
                "codec, or changed"
            )
        head = data[:_HEAD]
        key_id = head[1 : 1 + _ID]
        if key_id not in self._keys:
            raise EncryptionKeyError(
                f"a stored value was encrypted with key {key_id.hex()}, which is not among the "
                f"keys given ({', '.join(self.key_ids)}); add it behind the current one",
                key_id.hex(),
            )
        nonce, text = data[_HEAD : _HEAD + _NONCE], data[_HEAD + _NONCE :]
        opened = self._aesgcm.opened(self._cipher(head), nonce, text, head)
        if opened is None:
            raise EncryptionKeyError(
                f"a stored value that names key {key_id.hex()} was changed since it was encrypted; "
                "restore it from a backup",
                key_id.hex(),
            )
        return opened

    def is_current(self, data: bytes) -> bool:
        """See `PayloadCodec`."""
        return data[1 : 1 + _ID] == self._current

    def _cipher(self, head: bytes) -> Any:
        found = self._ciphers.get(head)
        if found is None:
            key = self._keys[head[1 : 1 + _ID]]
            found = self._ciphers[head] = self._aesgcm.derived(key, head[1 + _ID :])
            if len(self._ciphers) > _CACHED:
                self._ciphers.popitem(last=False)
        return found


def generate_key() -> str:
    """Return a new random key, in base64: for a vault or POLOS_ENCRYPTION_KEY, not for code."""
    return base64.urlsafe_b64encode(os.urandom(KEY_BYTES)).decode()


def _key(given: bytes | str) -> bytes:
    if isinstance(given, bytes) and len(given) == KEY_BYTES:
        return given
    text = given if isinstance(given, bytes) else given.strip().encode()
    try:
        key = base64.b64decode(text.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise UsageError(
            "an encryption key is 32 random bytes, as bytes or in base64 (44 characters); make one "
            "with polos.codecs.generate_key()"
        )
    return key


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"polos key id" + key).digest()[:_ID]
