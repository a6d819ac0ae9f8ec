"""Secrets where people look: questions, answers, past states, patches, and messages of errors."""

import traceback
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from polos import PolosClient, Secret, WorkflowContext, WorkflowState, events, workflow
from polos.codecs import EncryptionCodec, generate_key
from polos.errors import (
    ExecutionFailedError,
    FormError,
    InvalidPayloadError,
    InvalidStateError,
    SecretInClearError,
)
from tests.semantics.stores import MakeUrl, make_url, stop_servers, until

__all__ = ["make_url", "stop_servers"]

KEY = generate_key()
MASK = "**********"
WRONG = {"token": {"wrong": "Klartext"}}


class Login(BaseModel):
    user: str
    password: Secret[str]


class Session(WorkflowState):
    token: Secret[str] = Secret("Klartext")
    login: Login | None = None


@pytest.fixture
def asks() -> Any:
    @workflow(id="secret.asks", state_schema=Session)
    async def asks(ctx: WorkflowContext, login: Login) -> list[Any]:
        ctx.state.login = login
        got = await ctx.step.suspend("q", {"login": login, "token": ctx.state.token, "n": 1})
        held = ctx.state.login
        return [got["data"]["pin"].reveal(), ctx.state.token.reveal(), held.password.reveal()]

    return asks


def client_of(url: str, key: str | None = KEY) -> PolosClient:
    return PolosClient(url, codec=None if key is None else EncryptionCodec(key))


async def test_questions_and_past_states_are_masked_and_code_gets_answers(
    make_url: MakeUrl, asks: Any
) -> None:
    url = make_url()
    async with client_of(url) as client:
        handle = await asks.invoke(client, Login(user="u", password=Secret("Klartext")))
        await until(client.list_suspensions)
        (found,) = await client.list_suspensions()
        masked = {"user": "u", "password": MASK}
        assert found["data"] == {"login": masked, "token": MASK, "n": 1}
        state = {"token": MASK, "login": masked}
        assert await client.state_at(handle.id) == state
        assert await client.state_at(handle.id, seq=1) == state
        assert await client.state_at(handle.id, step_key="q") == state
        await client.patch_state(
            handle.id,
            {"token": Secret("patched"), "login": Login(user="v", password=Secret("nested"))},
        )
        async with client_of(url, None) as other:
            (found,) = await other.list_suspensions()
            assert (found["data"], found["form"]) == ("<encrypted>", None)
        await handle.resume("q", {"pin": Secret(4711)})
        assert await handle.result() == [4711, "patched", "nested"]
        told = [e.data async for e in events.stream_workflow(client, "secret.asks", handle.id, 0)]
        assert {"pin": MASK} in told


@pytest.mark.parametrize(
    "payload",
    [
        {"user": "u", "password": {"wrong": "Klartext"}},
        {"password": "Klartext"},
        {"user": [], "password": "Klartext"},
        "Klartext",
    ],
)
async def test_a_payload_that_does_not_fit_is_not_shown(asks: Any, payload: Any) -> None:
    async with client_of("sqlite://") as client:
        with pytest.raises(InvalidPayloadError) as e:
            await asks.invoke(client, payload)
    assert "Klartext" not in "".join(traceback.format_exception(e.value))


async def test_a_state_that_does_not_fit_is_not_shown(asks: Any) -> None:
    async with client_of("sqlite://") as client:
        login = Login(user="u", password=Secret("x"))
        with pytest.raises(InvalidStateError, match=r"(?s)token.*that the secret has") as initial:
            await asks.invoke(client, login, initial_state=WRONG)
        handle = await asks.invoke(client, login)
        await until(client.list_suspensions)
        with pytest.raises(InvalidStateError, match="token") as patched:
            await client.patch_state(handle.id, WRONG)
    for e in (initial, patched):
        assert "Klartext" not in "".join(traceback.format_exception(e.value))


async def test_without_a_codec_a_patch_holds_no_secret(make_url: MakeUrl) -> None:
    class Open(WorkflowState):
        note: Any = None

    @workflow(id="secret.open", state_schema=Open)
    async def waits(ctx: WorkflowContext) -> None:
        await ctx.step.suspend("q")

    async with client_of(make_url(), None) as client:
        handle = await waits.invoke(client)
        await until(client.list_suspensions)
        with pytest.raises(SecretInClearError):
            await client.patch_state(handle.id, {"note": Secret("x")})
        assert (await client.get_execution(handle.id))["state"] == {"note": None}


class Access(BaseModel):
    user: str
    password: Secret[Annotated[str, Field(min_length=3)]]
    pin: Secret[int] | None = None


@pytest.fixture
def form() -> Any:
    @workflow(id="secret.form")
    async def form(ctx: WorkflowContext) -> list[Any]:
        got: Access = (await ctx.step.suspend("q", form=Access))["data"]
        return [got.user, got.password.reveal(), got.pin and got.pin.reveal()]

    return form


async def test_forms_ask_for_secrets(make_url: MakeUrl, form: Any) -> None:
    async with client_of(make_url()) as client:
        handle = await form.invoke(client)
        await until(client.list_suspensions)
        (asked,) = await client.list_suspensions()
        fields = [(f["key"], f["type"], f.get("secret")) for f in asked["form"]["fields"]]
        assert fields == [
            ("user", "text", None),
            ("password", "password", True),
            ("pin", "integer", True),
        ]
        with pytest.raises(FormError, match="pin: expected a whole number, not str") as e:
            await handle.resume("q", {"user": "u", "password": "Klartext", "pin": "Klartext"})
        assert "Klartext" not in str(e.value)
        await handle.resume("q", {"user": "u", "password": Secret("Klartext"), "pin": 4711})
        assert await handle.result() == ["u", "Klartext", 4711]
        told = [e.data async for e in events.stream_workflow(client, "secret.form", handle.id, 0)]
        assert {"user": "u", "password": MASK, "pin": MASK} in told
        (step,) = await client.get_steps(handle.id)
        assert step["output"]["data"]["password"] == MASK


async def test_without_a_codec_no_form_asks_for_a_secret(form: Any) -> None:
    async with client_of("sqlite://", None) as client:
        with pytest.raises(ExecutionFailedError, match="form field 'password' holds a Secret"):
            await form(client)
