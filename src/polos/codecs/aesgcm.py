"""The cryptography behind `EncryptionCodec`; imported only where one is made."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derived(key: bytes, salt: bytes) -> AESGCM:
    """Return the cipher of one process: its key is derived from the shared one."""
    return AESGCM(HKDF(SHA256(), len(key), salt, b"polos at rest").derive(key))


def opened(cipher: AESGCM, nonce: bytes, data: bytes, head: bytes) -> bytes | None:
    """Return the text behind `data`, or None if it was changed."""
    try:
        return cipher.decrypt(nonce, data, head)
    except InvalidTag:
        return None
