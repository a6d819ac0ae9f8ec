"""Die before and after every commit, resume, and compare with an undisturbed run."""

import pytest

from polos.testing import SweepReport
from tests.sim.conftest import Fresh
from tests.sim.programs import PROGRAMS, build, swept


async def sweep(name: str, deaths: int = 1, fresh: Fresh | None = None) -> SweepReport:
    return await swept(build(name), deaths, fresh)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_death_at_any_commit_changes_nothing(name: str) -> None:
    report = await sweep(name)
    assert report.commits >= 3
    assert len(report.outcomes) >= 2 * report.commits - 2
    assert report.differences == []


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_death_at_any_commit_changes_nothing_on_postgres(
    name: str, postgres: Fresh
) -> None:
    report = await sweep(name, fresh=postgres)
    assert report.commits >= 3
    assert len(report.outcomes) >= 2 * report.commits - 2
    assert report.differences == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["threads", "racing", "close_race", "by_chance", "hooked", "timeouts", "cancelled"]
)
async def test_a_second_death_at_any_commit_of_the_second_life_changes_nothing(name: str) -> None:
    report = await sweep(name, deaths=2)
    assert any(len(plan) == 2 for plan in report.outcomes)
    assert report.differences == []
