"""The same on a server: who waits is told by a notification, or finds the answer when it looks."""

import pytest

from tests.processes.postgres.places import PostgresSite
from tests.processes.test_suspended import (
    answered_by_another_process,
    answered_while_the_worker_is_dead,
)

pytestmark = pytest.mark.slow


async def test_answered_by_another_process(site: PostgresSite) -> None:
    await answered_by_another_process(site)


async def test_answered_while_the_worker_is_dead(site: PostgresSite) -> None:
    await answered_while_the_worker_is_dead(site)
