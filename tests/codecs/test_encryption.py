"""Encryption: what it takes as a key, and what it makes of values that are not its own."""

import base64
import os
from typing import Any

import pytest

from polos.client import settings
from polos.codecs import EncryptionCodec, PayloadCodec, generate_key
from polos.errors import EncryptionKeyError, UsageError

ONE, TWO = generate_key(), generate_key()


def test_what_is_encrypted_is_read_with_any_of_the_keys() -> None:
    old = EncryptionCodec(ONE).encode(b"text")
    rotated = EncryptionCodec(keys=[TWO, ONE])
    assert b"text" not in old
    assert rotated.decode(old) == b"text"
    assert not rotated.is_current(old)
    assert rotated.is_current(rotated.encode(b"text"))
    assert EncryptionCodec(TWO).decode(rotated.encode(b"text")) == b"text"
    assert isinstance(rotated, PayloadCodec)


def test_the_same_value_is_never_encrypted_to_the_same() -> None:
    codec = EncryptionCodec(ONE)
    assert len({codec.encode(b"x") for _ in range(100)}) == 100
    assert EncryptionCodec(ONE).encode(b"x")[:21] != codec.encode(b"x")[:21]


def test_a_missing_key_is_named() -> None:
    text = EncryptionCodec(ONE).encode(b"text")
    with pytest.raises(EncryptionKeyError, match="encrypted with key") as caught:
        EncryptionCodec(TWO).decode(text)
    assert caught.value.key_id == EncryptionCodec(ONE).key_ids[0]


@pytest.mark.parametrize("place", [0, 5, 10, 25, 35, -1])
def test_a_changed_byte_is_found(place: int) -> None:
    codec = EncryptionCodec(ONE)
    text = bytearray(codec.encode(b"text"))
    text[place] ^= 1
    with pytest.raises(EncryptionKeyError):
        codec.decode(bytes(text))


@pytest.mark.parametrize("text", [b"", b"\x01", b"plain text", b"\x01" * 40])
def test_what_is_no_encrypted_value_is_refused(text: bytes) -> None:
    with pytest.raises(EncryptionKeyError):
        EncryptionCodec(ONE).decode(text)


def test_keys_are_bytes_or_base64() -> None:
    raw = os.urandom(32)
    same = [raw, base64.b64encode(raw), base64.urlsafe_b64encode(raw).decode() + "\n"]
    codecs = [EncryptionCodec(key) for key in same]
    assert len({codec.key_ids[0] for codec in codecs}) == 1
    assert codecs[1].decode(codecs[0].encode(b"x")) == b"x"
    assert raw.hex() not in repr(codecs[0])


@pytest.mark.parametrize("keys", [[], "", "short", b"x" * 31, ["a" * 44], [ONE, "no"]])
def test_what_is_no_key_is_refused_and_not_repeated(keys: Any) -> None:
    with pytest.raises(UsageError) as caught:
        EncryptionCodec(keys)
    assert ONE not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.codec(None) is None
    monkeypatch.setenv("POLOS_ENCRYPTION_KEYS", f"{TWO}, {ONE}")
    found = settings.codec(None)
    assert found is not None
    assert found.decode(EncryptionCodec(ONE).encode(b"x")) == b"x"
    assert EncryptionCodec(TWO).decode(found.encode(b"x")) == b"x"
    monkeypatch.setenv("POLOS_ENCRYPTION_KEY", ONE)  # as it was before there was a second
    assert repr(settings.codec(None)) == repr(EncryptionCodec([TWO, ONE]))
    with pytest.raises(UsageError, match="expected an object with encode"):
        settings.codec("key")
    with pytest.raises(UsageError, match="expected an object with encode"):
        settings.codec(EncryptionCodec)
