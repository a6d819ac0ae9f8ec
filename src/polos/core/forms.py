"""Forms: what a suspension asks for, and whether an answer is that.

A form is plain data, `{"title", "description", "fields": [...], "context": {...}}`, as it stands
under `_form` in what the code suspends with. A field is `{"key" (or "name"), "type", "label",
"description", "required", "default", "options", "min", "max", "pattern"}`. What an answer holds
beyond the fields is let through.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, cast

from polos.core.secret import MARK, stands_for
from polos.errors import FormError

FORM = "_form"

Check = str | None
"""What is wrong with a value, or None."""

_TYPES = {
    "text": "text",
    "textarea": "textarea",
    "password": "password",
    "secret": "password",
    "email": "email",
    "url": "url",
    "date": "date",
    "datetime": "datetime",
    "number": "number",
    "integer": "integer",
    "boolean": "boolean",
    "checkbox": "boolean",
    "select": "select",
    "radio": "select",
    "multiselect": "multiselect",
    "json": "json",
}
TEXTS = frozenset({"text", "textarea", "password", "email", "url", "date", "datetime"})
CHOICES = frozenset({"select", "multiselect"})
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")


class BrokenForm(ValueError):
    """What is given as a form is none; the message says where and why."""


@dataclass(slots=True, frozen=True)
class Field:
    """One field of a form."""

    key: str
    type: str
    label: str
    description: str | None = None
    required: bool = False
    default: Any = None
    has_default: bool = False
    options: tuple[tuple[Any, str], ...] = ()
    """(value, label)."""
    least: float | None = None
    """Of a number, or of the length of a text or a list."""
    most: float | None = None
    pattern: str | None = None
    secret: bool = False
    """Its value is recorded as a `Secret`."""

    @property
    def expected(self) -> str:
        """Say in words what the field takes."""
        return _words(self)


@dataclass(slots=True, frozen=True)
class Form:
    """What a suspension asks for."""

    title: str | None
    description: str | None
    fields: tuple[Field, ...]
    context: Mapping[str, Any]

    def check(self, answer: Any, whose: str) -> Any:
        """Return the answer with defaults filled in; `FormError` if it does not fit.

        `whose` names the suspension in the message.
        """
        if not self.fields:
            return answer
        keys = ", ".join(repr(field.key) for field in self.fields)
        if not isinstance(answer, dict):
            raise FormError(
                f"the answer to {whose} is an object with the fields {keys}, not {_shown(answer)}"
            )
        filled: dict[str, Any] = dict(cast("dict[str, Any]", answer))
        wrong: dict[str, str] = {}
        for field in self.fields:
            fault = self._fill(field, filled)
            if fault is not None:
                wrong[field.key] = fault
        if wrong:
            told = "; ".join(f"{key}: {fault}" for key, fault in wrong.items())
            raise FormError(
                f"the answer to {whose} does not fit its form, and it still waits: {told}", wrong
            )
        return filled

    @staticmethod
    def _fill(field: Field, answer: dict[str, Any]) -> Check:
        if answer.get(field.key) is None:
            if field.has_default:
                answer[field.key] = field.default
            elif field.required:
                return f"required: expected {field.expected}"
            return None
        if not field.secret:
            return fault_of(field, answer[field.key])
        given = answer[field.key]
        value = given[MARK] if stands_for(given) else given
        answer[field.key] = {MARK: value}
        return fault_of(field, value)


def of(data: Any) -> Form | None:
    """Return the form in what a suspension tells people; `BrokenForm` if it is none."""
    if not isinstance(data, Mapping):
        return None
    given = cast("Mapping[str, Any]", data).get(FORM)
    return None if given is None else parse(given)


def parse(given: Any) -> Form:
    """Return a form; `BrokenForm` names the fault."""
    if not isinstance(given, Mapping):
        raise BrokenForm(f"{FORM} is an object with title, description, fields and context")
    form = cast("Mapping[str, Any]", given)
    for name in ("title", "description"):
        if not isinstance(form.get(name), str | None):
            raise BrokenForm(f"{FORM}.{name} is a text, not {_shown(form[name])}")
    fields: Any = form.get("fields")
    context: Any = form.get("context")
    if not isinstance(fields, list | tuple | None):
        raise BrokenForm(f"{FORM}.fields is a list, not {_shown(fields)}")
    if not isinstance(context, Mapping | None):
        raise BrokenForm(f"{FORM}.context is an object, not {_shown(context)}")
    parsed = tuple(_field(n, each) for n, each in enumerate(cast("list[Any]", fields or [])))
    seen: set[str] = set()
    for field in parsed:
        if field.key in seen:
            raise BrokenForm(f"{FORM}.fields has {field.key!r} twice")
        seen.add(field.key)
    about = cast("Mapping[str, Any]", context or {})
    return Form(form.get("title"), form.get("description"), parsed, about)


def _field(place: int, given: Any) -> Field:
    where = f"{FORM}.fields[{place}]"
    if not isinstance(given, Mapping):
        raise BrokenForm(f"{where} is an object, not {_shown(given)}")
    raw = cast("Mapping[str, Any]", given)
    key: Any = raw.get("key", raw.get("name"))
    if not isinstance(key, str) or not key:
        raise BrokenForm(f"{where} has no key; give it 'key' (or 'name'), a text")
    where = f"{FORM} field {key!r}"
    type_ = raw.get("type") or "text"
    if not isinstance(type_, str) or type_ not in _TYPES:
        raise BrokenForm(f"{where}: type {_shown(type_)} is none of {', '.join(_TYPES)}")
    type_ = _TYPES[type_]
    field = Field(
        key,
        type_,
        str(raw.get("label") or key),
        None if raw.get("description") is None else str(raw["description"]),
        bool(raw.get("required")),
        raw.get("default"),
        raw.get("default") is not None,
        _options(where, type_, raw.get("options")),
        _bound(where, "min", raw),
        _bound(where, "max", raw),
        _pattern(where, raw.get("pattern")),
        bool(raw.get("secret")),
    )
    if field.least is not None and field.most is not None and field.least > field.most:
        raise BrokenForm(f"{where}: min {field.least:g} is more than max {field.most:g}")
    if field.has_default and (fault := fault_of(field, field.default)) is not None:
        raise BrokenForm(f"{where}: its default does not fit: {fault}")
    return field


def _options(where: str, type_: str, given: Any) -> tuple[tuple[Any, str], ...]:
    if type_ not in CHOICES:
        return ()
    if not isinstance(given, list | tuple) or not given:
        raise BrokenForm(f"{where}: a {type_} has options, a list of texts or of value and label")
    found: list[tuple[Any, str]] = []
    for each in cast("list[Any]", given):
        if isinstance(each, Mapping):
            option = cast("Mapping[str, Any]", each)
            if "value" not in option:
                raise BrokenForm(f"{where}: option {_shown(each)} has no value")
            found.append((option["value"], str(option.get("label") or option["value"])))
        else:
            found.append((each, str(each)))
    return tuple(found)


def _bound(where: str, name: str, raw: Mapping[str, Any]) -> float | None:
    value = raw.get(name)
    if value is not None and not (_is_number(value) and abs(value) <= sys.float_info.max):
        raise BrokenForm(f"{where}: {name} is a number, not {_shown(value)}")
    return value


def _pattern(where: str, given: Any) -> str | None:
    if given is None:
        return None
    try:
        re.compile(given)
    except (re.error, TypeError) as error:
        raise BrokenForm(f"{where}: pattern {_shown(given)} is none: {error}") from None
    return given


# -- values -----------------------------------------------------------------------------------


def fault_of(field: Field, value: Any) -> Check:
    """Say what is wrong with a value for a field that has one."""
    hidden = field.secret or field.type == "password"
    shown = type(value).__name__ if hidden else _shown(value)
    if not _has_type(field, value):
        return f"expected {field.expected}, not {shown}"
    if field.required and value in ("", []):
        return f"required: expected {field.expected}"
    size = value if field.type in ("number", "integer") else None
    if field.type in TEXTS or field.type == "multiselect":
        size = len(value)
    outside = size is not None and (
        (field.least is not None and size < field.least)
        or (field.most is not None and size > field.most)
    )
    mismatch = (
        field.pattern is not None
        and isinstance(value, str)
        and re.fullmatch(field.pattern, value) is None
    )
    if outside or mismatch:
        return f"expected {field.expected}" if hidden else f"expected {field.expected}, not {shown}"
    return None


def _has_type(field: Field, value: Any) -> bool:
    match field.type:
        case "boolean":
            return isinstance(value, bool)
        case "number":
            return _is_number(value)
        case "integer":
            return _is_number(value) and value == int(value)
        case "select":
            return _is_option(field, value)
        case "multiselect":
            chosen: Any = value
            return isinstance(chosen, list) and all(
                _is_option(field, each) for each in cast("list[Any]", chosen)
            )
        case "json":
            return True
        case _:
            return isinstance(value, str) and _is_text(field.type, value)


def _is_option(field: Field, value: Any) -> bool:
    return any(option == value and type(option) is type(value) for option, _ in field.options)


def _is_text(type_: str, value: str) -> bool:
    if value == "" or type_ in ("text", "textarea", "password"):
        return True
    if type_ == "email":
        return _EMAIL.fullmatch(value) is not None
    if type_ == "url":
        return _URL.fullmatch(value) is not None
    try:
        (date if type_ == "date" else datetime).fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


_WORDS = {
    "text": "a text",
    "textarea": "a text",
    "password": "a text",
    "email": "an address such as ann@example.com",
    "url": "a URL such as https://example.com",
    "date": "a date such as 2026-01-31",
    "datetime": "a moment such as 2026-01-31T12:00",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "json": "any JSON value",
}
_OPTIONS_SHOWN_MAX = 12


def _words(field: Field) -> str:
    if field.type in CHOICES:
        shown = [_shown(value) for value, _ in field.options[:_OPTIONS_SHOWN_MAX]]
        more = ", …" if len(field.options) > _OPTIONS_SHOWN_MAX else ""
        what = "one of" if field.type == "select" else "a list of some of"
        text = f"{what} {', '.join(shown)}{more}"
    else:
        text = _WORDS[field.type]
    unit = " characters" if field.type in TEXTS else ""
    if field.type == "multiselect":
        unit = " of them"
    if field.least is not None and field.most is not None:
        text += f" from {field.least:g} to {field.most:g}{unit}"
    elif field.least is not None:
        text += f" of {field.least:g}{unit} or more"
    elif field.most is not None:
        text += f" of {field.most:g}{unit} or less"
    return text if field.pattern is None else f"{text} like {field.pattern}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# -- from a model -----------------------------------------------------------------------------


def of_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form that asks for what a JSON schema of an object describes."""
    properties = cast("Mapping[str, Any]", schema.get("properties", {}))
    required = cast("list[str]", schema.get("required", []))
    definitions = cast("Mapping[str, Any]", schema.get("$defs", {}))
    fields = [
        {"key": key, **_of_property(each, definitions), "required": key in required}
        for key, each in properties.items()
    ]
    form: dict[str, Any] = {"title": schema.get("title"), "fields": fields}
    if schema.get("description"):
        form["description"] = schema["description"]
    return form


_FORMATS = {"email": "email", "uri": "url", "date": "date", "date-time": "datetime"}
_FORMATS["password"] = "password"
_BOUNDS = {
    "min": ("minimum", "minLength", "minItems"),
    "max": ("maximum", "maxLength", "maxItems"),
}


def _of_property(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    plain = _resolved(given, definitions)
    field: dict[str, Any] = {"type": _type_of(plain, definitions), "label": plain.get("title")}
    if field["type"] in CHOICES:
        items = plain if field["type"] == "select" else _resolved(plain["items"], definitions)
        field["options"] = [{"value": each, "label": str(each)} for each in items["enum"]]
    if plain.get("writeOnly"):
        field["secret"] = True
    for name in ("description", "default", "pattern"):
        if plain.get(name) is not None:
            field[name] = plain[name]
    if field["type"] != "json":
        for name, places in _BOUNDS.items():
            found = next((plain[place] for place in places if place in plain), None)
            if found is not None:
                field[name] = found
    return {name: value for name, value in field.items() if value is not None}


def _resolved(given: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return a property with its reference looked up; of `X | None`, X."""
    plain = dict(given)
    kinds = [each for each in plain.get("anyOf", ()) if each.get("type") != "null"]
    if len(kinds) == 1:
        plain = {**kinds[0], **{k: v for k, v in plain.items() if k != "anyOf"}}
    reference = plain.pop("$ref", None)
    if isinstance(reference, str):
        plain = {**definitions.get(reference.rpartition("/")[2], {}), **plain}
    return plain


def _type_of(plain: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "enum" in plain:
        return "select"
    match plain.get("type"):
        case "string":
            return _FORMATS.get(str(plain.get("format")), "text")
        case "boolean" | "integer" | "number" as same:
            return same
        case "array" if "enum" in _resolved(plain.get("items", {}), definitions):
            return "multiselect"
        case _:
            return "json"
