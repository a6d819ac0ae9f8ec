"""Each test has a registry of its own, and may not hang: programs are built anew in every test."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from polos.workflow import registry

# Far more than a crowded machine takes: what is green never waits for it.
HANGS_SECONDS = 120
SLOW_HANGS_SECONDS = 600


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())


@pytest.fixture(autouse=True)
def no_hang(request: pytest.FixtureRequest) -> Iterator[None]:
    """A livelock never gets as far as a timeout of asyncio's."""

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, on_alarm)
    slow = request.node.get_closest_marker("slow") is not None
    signal.setitimer(
        signal.ITIMER_REAL, SLOW_HANGS_SECONDS if slow else HANGS_SECONDS, 1
    )  # again, if it is swallowed
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
