"""Tools for testing workflows: a virtual clock, memory stores, crashes at will, journal files.

```python
async with Simulation() as simulation:  # memory, virtual time
    await my_workflow(simulation.client, payload)  # a 30-day wait takes milliseconds
```
"""

from polos.testing.clock import ManualClock
from polos.testing.journal import JournalFile, ReplayOutcome, replay
from polos.testing.simulation import Simulation
from polos.testing.sweep import Outcome, SweepReport, crash_sweep

__all__ = [
    "JournalFile",
    "ManualClock",
    "Outcome",
    "ReplayOutcome",
    "Simulation",
    "SweepReport",
    "crash_sweep",
    "replay",
]
