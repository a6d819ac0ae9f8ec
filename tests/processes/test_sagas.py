"""SIGKILL while a saga undoes: what was recorded is undone, the last first, each by its record."""

import pytest

from tests.processes.running import Site
from tests.processes.sagas import survives_kills


@pytest.mark.slow
async def test_a_saga_that_is_killed_while_it_undoes_goes_on_undoing(site: Site) -> None:
    await survives_kills(site)
