"""Real PostgreSQL servers for the tests: one of each version, or the one that is given."""

import itertools
import os
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest

from bench.pgserver import VERSIONS, Server, given_url

_numbers = itertools.count()
NAMES = ["postgres-given"] if given_url() else [f"postgres-{version}" for version in VERSIONS]
"""Parameters for fixtures that run on every server there is."""


_servers: dict[int, Server] = {}


def server(version: int = VERSIONS[-1]) -> Server:
    """Return this process's server of a version; what is written to it may be lost in a crash."""
    if version not in _servers:
        _servers[version] = Server(version, fsync=False)
    return _servers[version]


@pytest.fixture(autouse=True, scope="session")
def stop_servers() -> Iterator[None]:
    """Stop what was started."""
    yield
    while _servers:
        _servers.popitem()[1].stop()


def fresh_url(name: str = NAMES[-1], **options: str) -> str:
    """Return the URL of a schema that nobody has used."""
    schema = f"t{os.getpid()}_{next(_numbers)}"
    given = given_url()
    if given is not None:
        return f"{given}{'&' if '?' in given else '?'}{urlencode({'schema': schema, **options})}"
    return server(int(name.rpartition("-")[2])).url(schema=schema, **options)
