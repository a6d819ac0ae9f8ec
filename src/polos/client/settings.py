"""Every `POLOS_*` variable that the client reads, read here."""

from __future__ import annotations

import os

from polos.errors import UsageError

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
    value = int(text) if given is None else given
    if value < 1:
        raise UsageError(f"max_concurrent_workflows={value}: expected 1 or more")
    return value
