"""Tests that would not notice a broken engine prove nothing: each mutant must be caught."""

import pytest

from tests.sim.mutants import FAILED, MUTANTS, try_one


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_suite_catches(name: str) -> None:
    run = try_one(name)
    assert run.returncode == FAILED, run.stdout + run.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_leaves_no_trace(name: str) -> None:
    mutant = MUTANTS[name]
    before = [vars(place)[attribute] for place, attribute, _ in mutant.patches()]
    with mutant.applied():
        pass
    after = [vars(place)[attribute] for place, attribute, _ in mutant.patches()]
    assert before == after
