"""What each measure has to reach; a measure that is not in the table is only reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """A bound for the value of a measure, or for its ratio to the raw limit."""

    of: Literal["value", "ratio"]
    at: Literal["least", "most"]
    limit: float

    def met(self, value: float, ratio: float | None) -> bool:
        """Say whether a value and its ratio reach this target."""
        number = value if self.of == "value" else ratio
        if number is None:
            raise ValueError("a target for the ratio needs a raw limit to compare with")
        return number >= self.limit if self.at == "least" else number <= self.limit

    def __str__(self) -> str:
        return f"{self.of} {'>=' if self.at == 'least' else '<='} {self.limit:g}"


def _at_least(value: float) -> Target:
    return Target("value", "least", value)


def _at_most(value: float) -> Target:
    return Target("value", "most", value)


def _ratio_at_least(ratio: float) -> Target:
    return Target("ratio", "least", ratio)


def _ratio_at_most(ratio: float) -> Target:
    return Target("ratio", "most", ratio)


FINDING = (*("equal", "equal_none", "another", "range_common", "range_rare", "in_many", "both"),)
TARGETS: dict[tuple[str, str], Target] = {
    ("steps_one", "inline"): _ratio_at_least(0.75),
    ("steps_one", "thread"): _ratio_at_least(0.5),
    ("steps_many", "1000x10"): _at_least(20_000),
    ("steps_many", "100x10"): _at_least(15_000),
    ("steps_many", "1000x100"): _at_least(20_000),
    ("steps_many", "100x100"): _at_least(15_000),
    # 100 bodies of 10 ms on average give 10,000 steps/s at best: no target for them.
    ("steps_many", "1000x10_sleeping"): _at_least(20_000),
    ("steps_many_state", "1000x10"): _at_least(10_000),
    ("steps_many_state", "100x10"): _at_least(10_000),
    ("steps_many_state", "1000x100"): _at_least(10_000),
    ("steps_many_state", "100x100"): _at_least(10_000),
    ("steps_many_state", "1000x10_sleeping"): _at_least(10_000),
    ("start_to_result", "plain_p50"): _ratio_at_most(4.5),
    ("start_to_result", "plain_p99"): _ratio_at_most(10),
    ("start_to_result", "state_p50"): _ratio_at_most(4.5),
    ("start_to_result", "state_p99"): _ratio_at_most(10),
    ("children", "batch"): _at_most(0.4),
    ("children", "gather"): _at_most(0.4),
    ("resume", "plain"): _at_most(30),
    ("resume", "state"): _at_most(30),
    **{
        ("replay", f"{kind}_{size}"): _ratio_at_most(1.25)
        for kind in ("plain", "state")
        for size in (10_000, 50_000)
    },
    ("state_one", "1kb"): _ratio_at_most(1.15),
    ("state_one", "tracking"): _at_most(40),
    ("state_large", "flat"): _at_most(6),
    ("state_large", "nested"): _at_most(15),
    # The change of a step is about 50 bytes of the 1 MB.
    ("state_large", "flat_stored"): _at_most(500),
    ("state_large", "nested_stored"): _at_most(500),
    ("history", "state_at_p50"): _at_most(5),
    ("history", "state_at_p95"): _at_most(5),
    ("history", "state_at_long_p95"): _at_most(5),
    ("history", "state_at_keys_p95"): _at_most(5),
    ("history", "state_at_text_p95"): _at_most(5),
    **{("finding", name): _at_most(20) for name in FINDING},
    **{("finding", f"postgres_{name}"): _at_most(20) for name in FINDING},
    ("growth", "step_10000"): _ratio_at_most(1.2),
    ("growth", "step_10000_state"): _ratio_at_most(1.2),
    ("growth", "million"): _ratio_at_most(1.2),
    ("postgres", "one"): _ratio_at_least(0.7),
    ("postgres", "1000x10"): _at_least(15_000),
    ("postgres", "1000x10_state"): _at_least(7_000),
    ("postgres", "start_to_result_p50"): _ratio_at_most(4.5),
    ("postgres", "start_elsewhere_p50"): _at_most(10),
    ("postgres", "start_elsewhere_p99"): _at_most(40),
    ("postgres", "takeover_p50"): _at_most(2),
    ("postgres", "takeover_p99"): _at_most(3),
    ("postgres", "idle"): _at_most(2),
    ("events", "sqlite_tree_reader_p50"): _at_most(32),
    ("events", "postgres_tree_reader_p50"): _at_most(32),
    ("streams", "emit_10_readers"): _at_least(20_000),
    ("streams", "step_10_readers"): _at_least(20_000),
    ("import_time", "polos"): _ratio_at_most(1.25),
}
