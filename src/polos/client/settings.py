"""Every `POLOS_*` variable that the client reads, read here."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from polos.codecs import EncryptionCodec, PayloadCodec
from polos.core import ages
from polos.errors import UsageError

DRAIN_SECONDS = 10.0
SPILL_BYTES = 65_536
SPILL_BYTES_MIN = 1024
EVENT_SECONDS = 7 * 86_400.0
DEFAULT_URL = "sqlite:///.polos/polos.db"


def store_url(url: str | None, api_url: str | None) -> str:
    """Return where to run: given, POLOS_URL, POLOS_API_URL, or the embedded store here."""
    environment = os.environ
    return (
        url
        or api_url
        or environment.get("POLOS_URL")
        or environment.get("POLOS_API_URL")
        or DEFAULT_URL
    )


def approval_url(api_url: str | None) -> str | None:
    """Return the server with the pages that answer suspensions, if an http URL is known."""
    for url in (api_url, os.environ.get("POLOS_API_URL"), os.environ.get("POLOS_URL")):
        if url is not None and url.lower().startswith(("http://", "https://")):
            return url.rstrip("/")
    return None


def direct_url() -> str | None:
    """Return POLOS_DIRECT_URL: the server itself, where the store's URL leads to a pooler."""
    return os.environ.get("POLOS_DIRECT_URL")


def deployment_id(given: str | None) -> str | None:
    """Return the deployment: given, or POLOS_DEPLOYMENT_ID."""
    return given or os.environ.get("POLOS_DEPLOYMENT_ID")


def max_concurrent_workflows(given: int | None) -> int:
    """Return how many executions may run at once: given, POLOS_MAX_CONCURRENT_WORKFLOWS or 100."""
    text = os.environ.get("POLOS_MAX_CONCURRENT_WORKFLOWS", "100")
    if given is None and not text.isdigit():
        raise UsageError(f"POLOS_MAX_CONCURRENT_WORKFLOWS={text!r}: expected a whole number")
    value: Any = int(text) if given is None else given
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"max_concurrent_workflows={value!r}: expected a whole number, 1 or more")
    return value


def retention(given: ages.Age | None) -> float | None:
    """Return for how many seconds finished executions are kept: given, POLOS_RETENTION or None."""
    if given is not None:
        return ages.parse("retention", given)
    return ages.parse_optional("POLOS_RETENTION", os.environ.get("POLOS_RETENTION"))


def max_history() -> int:
    """Return how many rows a journal may have: POLOS_MAX_HISTORY, or 50,000."""
    text = os.environ.get("POLOS_MAX_HISTORY", "50000")
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"POLOS_MAX_HISTORY={text!r}: expected a whole number of 1 or more")
    return int(text)


def event_retention(given: ages.Age | None) -> float:
    """Return for how many seconds events of ordinary topics are kept: given, or the environment.

    That is POLOS_EVENT_RETENTION; 7 days where neither says anything.
    """
    if given is not None:
        return ages.parse("event_retention", given)
    text = os.environ.get("POLOS_EVENT_RETENTION")
    return EVENT_SECONDS if text is None else ages.parse("POLOS_EVENT_RETENTION", text)


def drain_seconds(given: float | None) -> float:
    """Return how long running steps may take to end when a worker stops: given, or 10."""
    value: Any = DRAIN_SECONDS if given is None else given
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UsageError(f"drain_seconds={given!r}: expected a number of seconds, 0 or more")
    return float(value)


def codec(given: Any) -> PayloadCodec | None:
    """Return what encrypts values at rest: given, or by POLOS_ENCRYPTION_KEY(S), or None.

    Both name keys; `KEYS` several with commas between them, of which the first encrypts. One that
    is still set as `KEY` stands behind them: a new key is put in front in `KEYS`.
    """
    if given is not None:
        if isinstance(given, type) or not isinstance(given, PayloadCodec):
            raise UsageError(
                f"codec={given!r}: expected an object with encode, decode and is_current, such as "
                "polos.codecs.EncryptionCodec(keys=[...])"
            )
        return given
    environment = os.environ
    named = (environment.get("POLOS_ENCRYPTION_KEYS"), environment.get("POLOS_ENCRYPTION_KEY"))
    keys = [key.strip() for text in named if text for key in text.split(",") if key.strip()]
    return EncryptionCodec(list(dict.fromkeys(keys))) if keys else None


def spill_bytes() -> int:
    """Return from how many characters on a value lies apart: POLOS_SPILL_BYTES or 65536."""
    text = os.environ.get("POLOS_SPILL_BYTES", str(SPILL_BYTES))
    if not text.isdigit() or int(text) < SPILL_BYTES_MIN:
        raise UsageError(
            f"POLOS_SPILL_BYTES={text!r}: expected a whole number of {SPILL_BYTES_MIN} or more"
        )
    return int(text)


def without_password(url: str) -> str:
    """Return a URL that may stand in a log."""
    url = re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&]password=)[^&]*", "***", url)
