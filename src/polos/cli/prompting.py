"""Asking on a terminal what a suspension wants to know, one field of its form after the other."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from typing import Any, cast

from rich.console import Console
from rich.text import Text

from polos.cli import text
from polos.core import forms
from polos.core.forms import Field, Form
from polos.core.suspension import DATA_OWN

YES = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
_NOTHING = object()
"""The field is left out."""


class Prompter:
    """Asks on the terminal; what it shows goes to standard output, if that is one."""

    def __init__(self) -> None:
        self._console = Console(
            stderr=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False
        )

    @staticmethod
    def is_possible() -> bool:
        """Say whether somebody sits there who could answer."""
        return sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())

    def ask(self, step_key: str, data: Any) -> Any:
        """Return the answer to what a suspension tells people; EOFError if they leave."""
        form = forms.of(data)
        self._tell(step_key, data, form)
        if form is None or not form.fields:
            return self._free()
        answer: dict[str, Any] = {}
        for field in form.fields:
            value = self._field(field)
            if value is not _NOTHING:
                answer[field.key] = value
        return answer

    def _tell(self, step_key: str, data: Any, form: Form | None) -> None:
        title = form.title if form is not None and form.title else step_key
        self._show(title, "bold")
        if form is not None and form.description:
            self._show(form.description)
        told = [] if form is None else list(form.context.items())
        if isinstance(data, dict):
            given = cast("dict[str, Any]", data)
            told += [pair for pair in given.items() if pair[0] not in DATA_OWN]
        elif data is not None:
            self._show(text.pretty(data))
        for key, value in told:
            shown = value if isinstance(value, str) else text.compact(value, 500)
            self._console.print(
                Text.assemble(("  ", ""), (text.clean(key), "dim"), ("  ", ""), text.clean(shown))
            )
        self._console.print()

    def _free(self) -> Any:
        while True:
            given = self._line("Answer (JSON or a text; Enter for {}): ")
            if not given:
                return {}
            try:
                return json.loads(given)
            except (ValueError, RecursionError) as error:
                if given[0] not in '{["':
                    return given
                self._complain(f"begins as JSON, and is none: {error}")

    # -- fields -------------------------------------------------------------------------------

    def _field(self, field: Field) -> Any:
        """Ask for one field until what is given fits; nothing takes the default, or leaves it."""
        label = text.clean(field.label)
        if field.description:
            self._show(field.description, "dim")
        for number, (_, option) in enumerate(field.options, 1):
            self._console.print(Text(f"  {number}) {text.clean(option)}"))
        prompt = f"{label}{_hint(field)}: "
        read = _READERS.get(field.type, _as_text)
        while True:
            given = self._given(field, prompt)
            if given == "":
                if field.has_default:
                    return field.default
                if not field.required:
                    return _NOTHING
                self._complain(f"required: expected {field.expected}")
                continue
            try:
                value = read(field, given)
            except (ValueError, RecursionError):
                self._complain(
                    "y or n" if field.type == "boolean" else f"expected {field.expected}"
                )
                continue
            fault = forms.fault_of(field, value)
            if fault is None:
                return value
            self._complain(fault)

    def _given(self, field: Field, prompt: str) -> str:
        if field.type == "password":
            return getpass.getpass(prompt)
        if field.type != "textarea":
            return self._line(prompt)
        lines = [self._line(prompt)]
        while lines[-1]:
            lines.append(self._line("  "))
        return "\n".join(lines[:-1])

    def _line(self, prompt: str) -> str:
        if sys.stdout.isatty():
            return input(prompt).strip()
        sys.stderr.write(prompt)
        sys.stderr.flush()
        return input().strip()

    def _show(self, what: str, style: str = "") -> None:
        self._console.print(Text(text.clean(what, lines=True), style))

    def _complain(self, what: str) -> None:
        self._console.print(Text(f"  {text.clean(what)}", "red"))


def _hint(field: Field) -> str:
    if field.type == "boolean":
        if not field.has_default:
            return " [y/n]"
        return " [Y/n]" if field.default else " [y/N]"
    parts: list[str] = []
    if field.type in forms.CHOICES:
        several = "" if field.type == "select" else ", several with commas"
        parts.append(f"1-{len(field.options)}{several}")
    if field.type == "textarea":
        parts.append("an empty line ends it")
    if field.has_default and field.default not in ("", None):
        parts.append(f"Enter for {_default(field)}")
    elif field.has_default or not field.required:
        parts.append("may be left out")
    return f" ({'; '.join(parts)})" if parts else ""


def _default(field: Field) -> str:
    if field.type == "password":
        return "what it is"
    value = field.default
    return text.clean(value) if isinstance(value, str) else text.compact(value, 60)


def _as_text(field: Field, given: str) -> Any:
    return given


def _as_number(field: Field, given: str) -> Any:
    try:
        return int(given)
    except ValueError:
        return float(given)


def _as_boolean(field: Field, given: str) -> Any:
    if given.lower() not in YES:
        raise ValueError(given)
    return YES[given.lower()]


def _as_option(field: Field, given: str) -> Any:
    """Read the number of an option, or the option as it is shown."""
    for value, label in field.options:
        if given in (label, str(value)) and not given.isdigit():
            return value
    number = int(given)
    if not 1 <= number <= len(field.options):
        raise ValueError(given)
    return field.options[number - 1][0]


def _as_options(field: Field, given: str) -> Any:
    return [_as_option(field, each.strip()) for each in given.split(",") if each.strip()]


_READERS: dict[str, Callable[[Field, str], Any]] = {
    "number": _as_number,
    "integer": _as_number,
    "boolean": _as_boolean,
    "select": _as_option,
    "multiselect": _as_options,
    "json": lambda field, given: json.loads(given),
}
