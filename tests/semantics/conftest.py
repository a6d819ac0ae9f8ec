"""Each test has a registry of its own: programs are built anew in every test."""

import pytest

from polos.workflow import registry


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())
