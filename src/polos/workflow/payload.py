"""Payloads on their way in: checked before a start, typed before the code sees them."""

import copy
from collections.abc import Mapping
from typing import Any, Protocol, cast

from pydantic import ValidationError

from polos.errors import InvalidPayloadError
from polos.workflow import hints
from polos.workflow.adapter import Adapter
from polos.workflow.signature import MISSING

SHOWN_MAX = 10


class Target(Protocol):
    """What has to be known of a workflow to read its payload."""

    @property
    def id(self) -> str: ...
    @property
    def has_payload_param(self) -> bool: ...
    @property
    def payload_hint(self) -> Any: ...
    @property
    def payload_accepts_none(self) -> bool: ...
    @property
    def payload_default(self) -> Any: ...
    @property
    def payload_adapter(self) -> Adapter | None: ...
    @property
    def takes_event_batches(self) -> bool: ...


def prepare(target: Target, payload: Any) -> Any:
    """Return `payload` as the type that the workflow's annotation asks for, ready to be encoded.

    Doing it twice changes nothing. Raises `InvalidPayloadError` with every field that does not
    fit. A workflow without payload parameter drops what it is given.
    """
    if target.takes_event_batches and _events(payload) is None:
        raise InvalidPayloadError(
            f"Workflow {target.id!r} is event-triggered and should have events in the payload: "
            '{"events": [...]}'
        )
    return load(target, payload)


def load(target: Target, value: Any) -> Any:
    """Return a recorded `value`, in its plain JSON form, as the type that the code expects."""
    if not target.has_payload_param:
        return None
    if value is None:
        return _absent(target)
    adapter = target.payload_adapter
    if adapter is None:
        return value
    try:
        return adapter.validate(value)
    except ValidationError as error:
        # Without its cause, which shows what was given: it may be a secret.
        raise InvalidPayloadError(_message(target, value, error)) from None


def _absent(target: Target) -> Any:
    if target.payload_default is not MISSING:
        return copy.deepcopy(target.payload_default)  # never shared between executions
    if target.payload_accepts_none:
        return None
    raise InvalidPayloadError(
        f"Workflow {target.id!r} requires a payload parameter, but None was provided; pass "
        f"{hints.name_of(target.payload_hint)}, or give the parameter a default"
    )


def _events(payload: Any) -> Any:
    if isinstance(payload, Mapping):
        return cast("Mapping[str, Any]", payload).get("events")
    return getattr(payload, "events", None)


def _message(target: Target, value: Any, error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False)
    expected = hints.name_of(target.payload_hint)
    got = type(value).__name__
    lines = [f"Invalid payload for workflow {target.id!r}: expected {expected}, got {got}"]
    for fault in faults[:SHOWN_MAX]:
        place = ".".join(str(part) for part in fault["loc"] if "(" not in str(part))
        text = f"{place}: {fault['msg']}" if place else fault["msg"]
        # The value itself may be a secret, its type is not.
        got = "" if fault["type"] == "missing" else f" (got {type(fault['input']).__name__})"
        lines.append(f"  {text}{got}")
    if len(faults) > SHOWN_MAX:
        lines.append(f"  and {len(faults) - SHOWN_MAX} more")
    return "\n".join(lines)
