"""The forms in which a workflow's schedule may be written.

Checks the shape of an expression; when it is due is not decided here.
"""

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from polos.errors import WorkflowDefinitionError

# Name, lowest and highest number, whether three-letter names are known.
FIELDS = [
    ("minute", 0, 59, False),
    ("hour", 0, 23, False),
    ("day of month", 1, 31, False),
    ("month", 1, 12, True),
    ("day of week", 0, 7, True),
]
VALUE = r"(?:[0-9]+|[A-Za-z]{3})"
# Texts, because compiling them would cost every import more than the rest of this module.
PART = rf"(?:\*|{VALUE}(?:-{VALUE})?)(?:/[0-9]+)?"
LAST_OR_NTH = r"(?i:L|LW|[0-7]L|[0-7]#[1-5])"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a workflow is started by itself: five cron fields in a time zone of the IANA list."""

    cron: str
    timezone: str = "UTC"
    key: str = "global"

    def __post_init__(self) -> None:
        _check_cron(self.cron)
        _check_timezone(self.timezone)
        if not isinstance(cast("Any", self.key), str) or not self.key:
            raise WorkflowDefinitionError(f"the key of a schedule is a non-empty str: {self.key!r}")


def parse_schedule(value: object) -> Schedule | None:
    """Return the schedule that `value` describes, or None where it names no time.

    `value` is a cron expression, `{"cron": ..., "timezone": "UTC", "key": "global"}`, True (a
    schedule may be created later), False or None.
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return Schedule(value)
    if not isinstance(value, Mapping):
        raise WorkflowDefinitionError(
            f"Invalid schedule type: {type(value).__name__}. Expected a cron expression such as "
            '"0 3 * * *", a dict like {"cron": "0 8 * * *", "timezone": "America/New_York"}, '
            "or a bool"
        )
    given = cast("Mapping[str, Any]", value)
    unknown = [key for key in given if key not in ("cron", "timezone", "key")]
    if unknown:
        raise WorkflowDefinitionError(
            f"a schedule has 'cron', 'timezone' and 'key', not {unknown[0]!r}"
        )
    if "cron" not in given:
        raise WorkflowDefinitionError('a schedule needs "cron", such as "0 3 * * *"')
    return Schedule(given["cron"], given.get("timezone", "UTC"), given.get("key", "global"))


def _check_cron(cron: Any) -> None:
    if not isinstance(cron, str):
        raise WorkflowDefinitionError(f"a cron expression is a str, not {cron!r}")
    fields = cron.split()
    if len(fields) != len(FIELDS):
        raise WorkflowDefinitionError(
            f"cron expression {cron!r} has {len(fields)} fields; write five: "
            "minute, hour, day of month, month, day of week"
        )
    for text, (name, lowest, highest, named) in zip(fields, FIELDS, strict=True):
        for part in text.split(","):
            if not _is_part(part, name, lowest, highest, named):
                raise WorkflowDefinitionError(
                    f"cron expression {cron!r}: {part!r} is not a {name} "
                    f"({lowest} to {highest}, with * , - and /)"
                )


def _is_part(part: str, name: str, lowest: int, highest: int, named: bool) -> bool:
    if name.startswith("day") and re.fullmatch(LAST_OR_NTH, part):
        return True
    if not re.fullmatch(PART, part):
        return False
    values, _, step = part.partition("/")
    if step and int(step) == 0:
        return False
    return all(
        lowest <= int(value) <= highest if value.isdecimal() else named
        for value in values.split("-")
        if value != "*"
    )


def _check_timezone(timezone: Any) -> None:
    # UTC needs no database, and some systems have none.
    if timezone == "UTC":
        return
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise WorkflowDefinitionError(
            f"time zone {timezone!r} is not known here; use a name of the IANA list such as "
            "'Europe/Berlin' (the package tzdata brings it where the system has none)"
        ) from error
