"""SIGKILL at random moments: an execution goes on from its last commit, nothing is done twice."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.processes.running import LIMIT_SECONDS, Site, output, site, until

KILLS = 8
pytestmark = pytest.mark.slow


def left_behind(place: Site, name: str) -> dict[str, Any]:
    """Return what is left of the execution and its child, without ids and times."""
    ((root,),) = place.rows("SELECT id FROM execution WHERE idempotency_key = ?", name)
    found: dict[str, Any] = {}
    for id, workflow_id, status, result, error in place.rows(
        "SELECT id, workflow_id, status, result, error FROM execution WHERE root_id = ?", root
    ):
        steps = place.rows(
            "SELECT key, kind, ok, body, turn IS NULL FROM step WHERE execution_id = ? "
            "AND kind NOT IN ('state', 'cancel') ORDER BY key",
            id,
        )
        found[workflow_id] = (status, result, error, [s for s in steps if s[0] != "child"])
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, list[str]]:
    with site(tmp_path_factory.mktemp("undisturbed")) as place:
        result = json.loads(place.start("run").communicate(timeout=LIMIT_SECONDS)[0])
        return result, left_behind(place, "job"), sorted(place.effects())


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_killed_at_random_moments(
    tmp_path: Path, undisturbed: tuple[Any, Any, list[str]], seed: int
) -> None:
    result, records, effects = undisturbed
    chance = random.Random(seed)
    # Moments by how far it came, so that a slow machine is killed at the same places.
    marks = sorted(chance.sample(range(1, len(effects)), KILLS))
    with site(tmp_path) as place:
        for mark in marks:
            process = place.start("run")
            await until(
                lambda mark=mark, p=process: (
                    len(set(place.effects())) >= mark or p.poll() is not None
                )
            )
            for _ in range(chance.randrange(3000)):
                pass  # somewhere between two effects
            process.kill()
            process.wait()
        assert json.loads(await output(place.start("run"))) == result
        assert left_behind(place, "job") == records
        assert place.owned() == []
        done = Counter(place.effects())
        assert set(done) == set(effects)
        again = sum(done.values()) - len(effects)
        # Only what ran at the moment of a kill may run again: at most three at once.
        assert again <= 3 * KILLS
        print(f"seed {seed}: killed at {marks}, {again} effects repeated")
