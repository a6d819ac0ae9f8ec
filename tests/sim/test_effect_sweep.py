"""Die before and after every commit of hooks, sagas, guarded effects and long histories."""

import pytest

from polos.testing import SweepReport
from tests.sim.conftest import Fresh
from tests.sim.effect_programs import PROGRAMS, TO_DIE_TWICE
from tests.sim.programs import swept


async def sweep(name: str, fresh: Fresh | None = None) -> SweepReport:
    return await swept(PROGRAMS[name](), 1, fresh)


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_death_at_any_commit_changes_nothing(name: str) -> None:
    report = await sweep(name)
    assert report.commits >= 3
    assert len(report.outcomes) >= 2 * report.commits - 2
    assert report.differences == []
    demand_once(report)


def demand_once(report: SweepReport) -> None:
    """What is said to happen once happened once, however often the process died."""
    for plan, outcome in report.outcomes.items():
        once = [str(e) for e in outcome.effects if str(e).startswith("once")]
        assert len(once) == len(set(once)), (plan, once)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_death_at_any_commit_changes_nothing_on_postgres(
    name: str, postgres: Fresh
) -> None:
    report = await sweep(name, fresh=postgres)
    assert report.commits >= 3
    assert report.differences == []
    demand_once(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", TO_DIE_TWICE)
async def test_a_second_death_changes_nothing(name: str) -> None:
    report = await swept(TO_DIE_TWICE[name](), 2, None)
    assert any(len(plan) == 2 for plan in report.outcomes)
    assert report.differences == []
    demand_once(report)
