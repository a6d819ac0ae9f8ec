"""What text of JSON every reader can read: no NaN or infinity, and not nested too deeply."""

from __future__ import annotations

from pydantic_core import from_json

from polos.core.codec_kinds import DEPTH

LEVELS_MAX = DEPTH - 4
"""Levels of lists and dicts. An event stands within others where it is recorded or starts a
workflow, and what cannot be recorded there would hold up the events behind it for ever."""
_DECODED_MAX = 200
"""Levels that the decoder takes."""
_SPARE = _DECODED_MAX - LEVELS_MAX


def demand_readable(text: str) -> None:
    """Raise `ValueError` unless the text is JSON that readers can decode where it will stand."""
    try:
        from_json(f"{'[' * _SPARE}{text}{']' * _SPARE}", allow_inf_nan=False)
    except ValueError as error:
        if "recursion" in str(error):
            what = f"it is nested deeper than {LEVELS_MAX} levels"
        else:
            what = "JSON has no NaN and no infinity"
        raise ValueError(what) from None
