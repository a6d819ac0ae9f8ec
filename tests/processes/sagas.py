"""Kills a saga while it undoes, on whichever store, and looks at what was undone."""

import json
from collections import Counter

from tests.processes.running import Site, output, until

KEYS = "abcdef"


async def survives_kills(place: Site) -> None:
    """Kill a process behind each effect of the undoing; the last one ends the saga."""
    undone = [f"undo {key.upper()}" for key in reversed(KEYS)]
    for effect in ["do c", *undone[:-1]]:
        process = place.start("saga")
        await until(lambda e=effect, p=process: e in place.effects() or p.poll() is not None)
        process.kill()
        process.wait()
    text, left, state = json.loads(await output(place.start("saga")))
    assert (text, left) == ("Step execution failed after 0 retries: no seats", [])
    assert state["done"] == 0
    # By their records: each once, the last first, none skipped.
    rows = place.rows("SELECT key, ok FROM step WHERE kind = 'compensate' ORDER BY turn")
    assert [(key, bool(ok)) for key, ok in rows] == [
        (f"compensate.{key}", True) for key in reversed(KEYS)
    ]
    effects = place.effects()
    counts = Counter(effects)
    assert set(counts) == {*(f"do {key}" for key in KEYS), "full", *undone}
    # What ran at the moment of a kill may run again, and nothing that was recorded does.
    assert max(counts.values()) <= 2
    first = [each for n, each in enumerate(effects) if each not in effects[:n]]
    assert first[-len(undone) :] == undone
    places = [undone.index(each) for each in effects if each in undone]
    assert places == sorted(places)
    assert place.owned() == []
