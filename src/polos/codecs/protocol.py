"""What a codec of stored values has to do; `EncryptionCodec` is one, an own one may ask a vault."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class PayloadCodec(Protocol):
    """Encrypts what is stored and decrypts what is read; called on the event loop, often.

    Both get and return bytes. `decode` raises `EncryptionKeyError` for what it cannot read.
    """

    def encode(self, data: bytes) -> bytes:
        """Return what is stored in place of `data`."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Return what `encode` was given, by this codec or one with another first key."""
        ...

    def is_current(self, data: bytes) -> bool:
        """Say whether `encode` would use the same key as for `data`; False: `rekey` rewrites it."""
        ...
