"""Values as the text that a terminal shows: times, durations, JSON; pure functions."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, cast

LINE = 76
"""Columns of a line of JSON that is laid out for people."""


def moment(iso: str | None) -> datetime | None:
    """Read a moment as the client gives it."""
    return None if iso is None else datetime.fromisoformat(iso)


def ago(then: datetime, now: datetime) -> str:
    """Say how far `then` is from `now`, in its one largest unit: `3 min ago`, `in 2 d`."""
    seconds = (now - then).total_seconds()
    form, size = ("{} ago", seconds) if seconds >= 0 else ("in {}", -seconds)
    if size < 1:
        return "now"
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if round(size) < limit:
            return form.format(f"{round(size / unit)} {name}")
    return form.format(f"{round(size / 86_400)} d")


def took(seconds: float) -> str:
    """Return a duration in its two largest units: `12 ms`, `2.4 s`, `3 min 20 s`, `2 d 4 h`."""
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = whole // 60
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def size(count: int) -> str:
    """Return a number of bytes in its largest unit: `512 B`, `8.2 kB`, `1.4 GB`."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    digits = 0 if units[0] == "B" or value >= 99.95 else 1
    return f"{value:.{digits}f} {units[0]}"


def between(begin: str | None, end: str | None, now: datetime) -> str:
    """Return the time from `begin` to `end`, or to `now` while there is no end."""
    first = moment(begin)
    return "" if first is None else took(((moment(end) or now) - first).total_seconds())


def clean(text: str, *, lines: bool = False) -> str:
    """Escape what a terminal would obey or cannot show; line breaks too, unless `lines`.

    Step keys, errors and payloads come from anywhere: they must not move somebody's cursor.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else escaped(c) for c in text)


def escaped(character: str) -> str:
    """Return one character as JSON would write it: `\\n`, `\\u001b`."""
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def pretty(value: Any) -> str:
    """Return a value as indented JSON, safe to print; what fits on a line stays on one."""
    return clean(_laid_out(finite(value), "", 0), lines=True)


def _laid_out(value: Any, indent: str, column: int) -> str:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if column + len(line) <= LINE or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    start = len(inner)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        parts = [_laid_out(each, inner, start) for each in items]
        return f"[\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}]"
    fields = cast("dict[str, Any]", value)
    parts = [
        f"{json.dumps(key, ensure_ascii=False)}: {_laid_out(each, inner, start + len(key) + 4)}"
        for key, each in fields.items()
    ]
    return f"{{\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}}}"


def compact(value: Any, limit: int) -> str:
    """Return a value as JSON on one line of at most `limit` characters."""
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False)
    return cut(clean(text), limit)


def cut(text: str, limit: int) -> str:
    """Shorten a text to `limit` characters, and say so with an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def document(value: Any) -> str:
    """Return a value as strict JSON on one line, in ASCII: readable by every tool anywhere."""
    return json.dumps(finite(value), allow_nan=False)


def finite(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by their names as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: finite(each) for key, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [finite(each) for each in cast("list[Any]", value)]
    return value
