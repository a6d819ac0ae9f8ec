"""A parsed `postgresql://` URL: what goes to the driver, and what Polos takes out of it."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode

from polos.errors import UsageError

SCHEMES = ("postgresql:", "postgres:")
_OPTIONS = ("schema", "mode", "synchronous", "pgbouncer", "direct", "bells", "away")
_SCHEMA = re.compile(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,62}")
# To the last @: a password that was not percent-encoded is no less secret.
_PASSWORD = re.compile(r"(://[^:/?]*:).*@|(password=)[^&]*")
_HOST = r"(?:\[[0-9A-Fa-f:.]*\]|[^:,@/?#\[\]]*)(?::\d*)?"
_BASE = re.compile(rf"[a-z]+://(?:[^@/?#]*@)?{_HOST}(?:,{_HOST})*(?:/[^@?#]*)?", re.IGNORECASE)
_YES = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
AWAY_SECONDS = 120.0


class Location:
    """A PostgreSQL URL: all that asyncpg accepts (`?host=/socket/folder`, several hosts), and ours.

    `schema=NAME` (default `polos`): the schema that holds the tables.
    `mode=rwc|rw|ro` (default rwc): create and upgrade the tables; only use them; only look.
    `synchronous=full|normal` (default full: a commit survives a crash of the server; normal: the
    last commits may be lost with it, in order).
    `pgbouncer=on`: the URL leads to PgBouncer in transaction mode: no prepared statements, no
    session settings. `direct=URL` (or `direct_url`) then leads to the server itself, for
    bells and for the lock that proves that a worker lives; without it both are done by polling.
    `bells=off`: do not tell other processes of what they may want to know at once; they poll.
    `away=SECONDS` (default 120): how long starts and reads wait for a database that is away, before
    they raise `StoreUnavailableError`. Running steps wait for it without limit.
    """

    def __init__(self, url: str, direct_url: str | None = None) -> None:
        if not url.lower().startswith(SCHEMES):
            raise UsageError(f"{hidden(url)!r} is not a PostgreSQL URL; expected postgresql://…")
        base, given = _parts(url)
        own = {name: value for name, value in given if name in _OPTIONS}
        rest = [(name, value) for name, value in given if name not in _OPTIONS]
        self.dsn = base + (f"?{urlencode(rest)}" if rest else "")
        self.shown = hidden(self.dsn)
        self.schema = own.get("schema", "polos")
        if not _SCHEMA.fullmatch(self.schema):
            raise UsageError(
                f"schema={self.schema!r} in {self.shown}: expected up to 63 letters, "
                "digits and underscores, not pg_ at the beginning"
            )
        mode = own.get("mode", "rwc")
        if mode not in {"ro", "rw", "rwc"}:
            raise UsageError(f"mode={mode!r} in {self.shown}: expected ro, rw or rwc")
        self.read_only = mode == "ro"
        self.create = mode == "rwc"
        self.synchronous = own.get("synchronous", "full")
        if self.synchronous not in {"full", "normal"}:
            raise UsageError(
                f"synchronous={self.synchronous!r} in {self.shown}: expected full or normal"
            )
        self.pooled = self._switch(own, "pgbouncer", "off")
        self.bells = self._switch(own, "bells", "on")
        direct = own.get("direct") or direct_url
        self.direct: str | None = self.dsn if not self.pooled else None
        if direct:
            self.direct = Location._plain(direct)
        try:
            self.away_seconds = float(own.get("away", AWAY_SECONDS))
        except ValueError:
            self.away_seconds = -1.0
        if not 0 <= self.away_seconds <= 86_400:
            raise UsageError(
                f"away={own.get('away')!r} in {self.shown}: expected seconds, from 0 to 86400"
            )

    def _switch(self, own: dict[str, str], name: str, default: str) -> bool:
        value = own.get(name, default).lower()
        if value not in _YES:
            raise UsageError(f"{name}={value!r} in {self.shown}: expected on or off")
        return _YES[value]

    @staticmethod
    def _plain(url: str) -> str:
        if not url.lower().startswith(SCHEMES):
            raise UsageError(
                f"the direct URL {hidden(url)!r} is not a PostgreSQL URL; expected postgresql://…"
            )
        base, given = _parts(url)
        rest = [pair for pair in given if pair[0] not in _OPTIONS]
        return base + (f"?{urlencode(rest)}" if rest else "")


def _parts(url: str) -> tuple[str, list[tuple[str, str]]]:
    base, _, query = url.partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    if not _BASE.fullmatch(base) or any("@" in name for name, _ in given):
        raise UsageError(
            f"{hidden(url)!r}: expected postgresql://user:password@host:5432/database; in user and "
            "password the characters @ : / ? # are written as %40 %3A %2F %3F %23"
        )
    return base, given


def hidden(url: str) -> str:
    """Return a URL without its password."""
    return _PASSWORD.sub(lambda m: f"{m[1]}***@" if m[1] else f"{m[2]}***", url)
