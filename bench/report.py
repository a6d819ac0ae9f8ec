"""Measures as JSON lines for programs and as a table for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.targets import TARGETS

Pair = tuple[float, float | None]
"""What was measured in one run, and the raw limit measured beside it, in the same unit."""

UNSTEADY = 1.5
"""How many times the lowest raw limit of the runs the highest may be, before readers are told."""


@dataclass(frozen=True)
class Measure:
    """One line of the report: medians over the runs."""

    bench: str
    measure: str
    value: float
    unit: str
    raw: float | None
    against: str | None
    """What `raw` is."""
    ratio: float | None
    """The median of the pairwise ratios, which is not the ratio of the medians."""
    target: str | None
    runs: list[Pair]
    ok: bool | None
    """None without a target, and with `--quick`, whose sizes are too small to judge by."""

    def line(self) -> str:
        """Return the measure as one line of JSON."""
        return json.dumps(asdict(self))


def summarize(
    bench: str, measure: str, unit: str, runs: Sequence[Pair], against: str | None, *, judge: bool
) -> Measure:
    """Reduce the runs of a measure to medians and hold them against the target."""
    value = statistics.median(run for run, _ in runs)
    raws = [raw for _, raw in runs if raw is not None]
    raw = statistics.median(raws) if raws else None
    ratio = statistics.median(run / beside for run, beside in runs if beside) if raws else None
    target = TARGETS.get((bench, measure))
    return Measure(
        bench,
        measure,
        _rounded(value),
        unit,
        None if raw is None else _rounded(raw),
        against,
        None if ratio is None else _rounded(ratio),
        None if target is None else str(target),
        [(_rounded(run), None if beside is None else _rounded(beside)) for run, beside in runs],
        target.met(value, ratio) if target is not None and judge else None,
    )


def _rounded(number: float) -> float:
    return float(f"{number:.5g}")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Return measures, as read from their JSON lines, as a table."""
    heads = ["bench", "measure", "value", "unit", "raw", "ratio", "target", "", "against"]
    rows = [heads, *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    numbers = {2, 4, 5}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _steadiness(line: dict[str, Any]) -> str:
    raws = [raw for _, raw in line["runs"] if raw]
    if not raws or max(raws) < UNSTEADY * min(raws):
        return ""
    return f" (unsteady: {_shown(min(raws))} to {_shown(max(raws))})"


def _cells(line: dict[str, Any]) -> list[str]:
    verdict = {None: "", True: "ok", False: "MISSED"}[line["ok"]]
    return [
        line["bench"],
        line["measure"],
        _shown(line["value"]),
        line["unit"],
        _shown(line["raw"]),
        _shown(line["ratio"]),
        line["target"] or "",
        verdict,
        (line["against"] or "") + _steadiness(line),
    ]


def _shown(number: float | None) -> str:
    if number is None:
        return ""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}"
