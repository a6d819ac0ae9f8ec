"""SIGKILL while a saga undoes, on a server."""

import pytest

from tests.processes.postgres.places import PostgresSite
from tests.processes.sagas import survives_kills


@pytest.mark.slow
async def test_a_saga_that_is_killed_while_it_undoes_goes_on_undoing(site: PostgresSite) -> None:
    await survives_kills(site)
