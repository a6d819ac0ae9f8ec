"""Secrets as values: masked in every text, and the very same when they come back."""

import json
import logging
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from polos import Secret
from polos.core import secret
from polos.core.codec import Codec
from polos.errors import EncodeError, SecretInClearError


class Account(BaseModel):
    user: str
    password: Secret[str]
    pin: Secret[int] | None = None
    old: list[Secret[str]] = []


ACCOUNT = Account(user="ann", password=Secret("hunter2"), pin=Secret(7), old=[Secret("hunter1")])


@pytest.mark.parametrize("shown", [repr, str, "{}".format, "{!r}".format, "%s".__mod__])
def test_no_text_of_a_secret_tells_it(shown: Any) -> None:
    for value in (Secret("hunter2"), ACCOUNT, [Secret("hunter2")], {"a": ACCOUNT}):
        assert "hunter" not in shown(value)


def test_logs_and_dumps_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        logging.getLogger("app").info("got %s and %r", ACCOUNT.password, ACCOUNT)
    assert "hunter" not in caplog.text
    assert "hunter" not in ACCOUNT.model_dump_json()
    assert "hunter" not in str(ACCOUNT.model_dump(mode="json"))
    assert ACCOUNT.model_dump()["password"].reveal() == "hunter2"


def test_code_gets_the_value() -> None:
    assert ACCOUNT.password.reveal() == ACCOUNT.password.get_secret_value() == "hunter2"
    made = Account.model_validate({"user": "x", "password": "plain", "pin": 3})
    assert made.password == Secret("plain")
    assert made.pin == Secret(3)
    with pytest.raises(ValidationError):
        Account.model_validate({"user": "x", "password": "plain", "pin": "no number"})


@pytest.mark.parametrize(
    "value",
    [
        Secret("x"),
        Secret(b"\xff\x00"),
        Secret(None),
        Secret({"$secret": 1}),
        Secret([1, (2, 3)]),
        Secret(datetime(2026, 1, 2)),  # noqa: DTZ001 - as users may have it
        {"a": [Secret("x"), 1], "b": Secret(ACCOUNT)},
        ACCOUNT,
        [ACCOUNT] * 30,
    ],
    ids=repr,
)
def test_a_secret_comes_back_from_its_record(value: Any) -> None:
    codec = Codec(keeps_secrets=True)
    encoded = codec.encode(value)
    again = codec.decode(*encoded)
    assert again == value
    assert type(again) is type(value)


def test_a_record_is_masked_whole() -> None:
    body = Codec(keeps_secrets=True).encode({"deep": [ACCOUNT], "plain": "seen"}).body
    assert "hunter2" in body
    masked = str(secret.mask(json.loads(body)))
    assert "hunter" not in masked
    assert "seen" in masked
    assert "ann" in masked


@pytest.mark.parametrize("value", [Secret("x"), ACCOUNT, [1, {"a": Secret("x")}]], ids=repr)
def test_without_encryption_a_secret_is_refused(value: Any) -> None:
    with pytest.raises(SecretInClearError, match=r"payload holds a Secret.*POLOS_ENCRYPTION_KEY"):
        Codec().encode(value, what="payload")
    assert issubclass(SecretInClearError, EncodeError)


def test_secrets_are_told_apart_by_value_and_type() -> None:
    assert Secret("1") == Secret("1")
    assert Secret("1") != Secret(1)
    assert Secret("1") != "1"
    assert len({Secret("1"), Secret("1"), Secret(1)}) == 2
