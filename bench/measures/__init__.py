"""The measures, one module each with a `measure(session)`, in the order of the report."""

NAMES = (
    "steps_one",
    "steps_many",
    "steps_many_state",
    "start_to_result",
    "children",
    "resume",
    "state_one",
    "state_large",
    "growth",
    "import_time",
    "commits",
    "replay",
    "enqueue",
    "timers",
    "suspended",
    "postgres",
    "retention",
    "events",
)
