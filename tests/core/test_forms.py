"""What a form asks for, and which answers are that."""

from enum import StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from polos.core import forms
from polos.errors import FormError


def form(*fields: dict[str, Any], **more: Any) -> forms.Form:
    return forms.parse({"fields": list(fields), **more})


def wrong(answer: Any, *fields: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with an answer, by field."""
    with pytest.raises(FormError) as caught:
        form(*fields).check(answer, "'ok'")
    return caught.value.fields


def test_data_without_a_form_asks_for_nothing() -> None:
    for data in (None, [], "text", {"ask": 1}, {"_form": None}):
        assert forms.of(data) is None


def test_a_form_without_fields_takes_any_answer() -> None:
    assert form(title="t").check([1], "'ok'") == [1]


def test_fields_are_named_by_key_or_name() -> None:
    parsed = form({"key": "a"}, {"name": "b", "label": "B", "type": "textarea"})
    assert [(f.key, f.label, f.type) for f in parsed.fields] == [
        ("a", "a", "text"),
        ("b", "B", "textarea"),
    ]


def test_defaults_are_filled_in_and_more_is_let_through() -> None:
    asked = form({"key": "a", "default": 3, "type": "number"}, {"key": "b"}, {"key": "c"})
    assert asked.check({"b": "x", "z": [1]}, "'ok'") == {"a": 3, "b": "x", "z": [1]}
    assert asked.check({"a": None}, "'ok'") == {"a": 3}


def test_an_answer_is_not_changed_in_place() -> None:
    given: dict[str, Any] = {}
    form({"key": "a", "default": 1, "type": "number"}).check(given, "'ok'")
    assert given == {}


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("text", ["", "a\nb"], [1, True, [], {}]),
        ("boolean", [True, False], ["yes", 1, 0]),
        ("number", [1, -2.5, 10**20, 10**400], ["1", True, float("nan"), float("inf")]),
        ("integer", [1, 2.0, -(10**400)], [1.5, "1", False]),
        ("email", ["ann@example.com", ""], ["ann", "a b@c", 3]),
        ("url", ["https://example.com/x"], ["example.com", "https://"]),
        ("date", ["2026-01-31"], ["31.1.2026", "2026-02-31"]),
        ("datetime", ["2026-01-31T12:00", "2026-01-31T12:00:00+01:00"], ["noon"]),
        ("json", [{"a": [1]}, "x", 1], []),
        ("password", ["s3cret"], [1]),
    ],
)
def test_a_value_is_of_the_type_of_its_field(type_: str, good: list[Any], bad: list[Any]) -> None:
    asked = form({"key": "a", "type": type_})
    for value in good:
        assert asked.check({"a": value}, "'ok'") == {"a": value}
    for value in bad:
        assert list(wrong({"a": value}, {"key": "a", "type": type_})) == ["a"]


def test_a_choice_is_one_of_the_options() -> None:
    field = {"key": "a", "type": "select", "options": ["red", {"value": 2, "label": "Two"}]}
    assert form(field).check({"a": 2}, "'ok'") == {"a": 2}
    assert wrong({"a": "2"}, field) == {"a": "expected one of 'red', 2, not '2'"}
    assert list(wrong({"a": True}, {**field, "options": [1]})) == ["a"]
    several = {**field, "type": "multiselect", "min": 1}
    assert form(several).check({"a": ["red", 2]}, "'ok'") == {"a": ["red", 2]}
    assert list(wrong({"a": ["blue"]}, several)) == ["a"]
    assert list(wrong({"a": []}, several)) == ["a"]


def test_numbers_and_texts_have_bounds() -> None:
    number = {"key": "a", "type": "number", "min": 0, "max": 10}
    assert form(number).check({"a": 10}, "'ok'") == {"a": 10}
    assert wrong({"a": 11}, number) == {"a": "expected a number from 0 to 10, not 11"}
    text = {"key": "a", "max": 3}
    assert wrong({"a": "four"}, text) == {
        "a": "expected a text of 3 characters or less, not 'four'"
    }
    pattern = {"key": "a", "pattern": "[A-Z]+"}
    assert wrong({"a": "ab"}, pattern) == {"a": "expected a text like [A-Z]+, not 'ab'"}


def test_what_is_required_is_there_and_not_empty() -> None:
    field = {"key": "a", "required": True}
    assert wrong({}, field) == {"a": "required: expected a text"}
    assert wrong({"a": None}, field) == {"a": "required: expected a text"}
    assert wrong({"a": ""}, field) == {"a": "required: expected a text"}
    flag = {"key": "a", "required": True, "type": "boolean"}
    assert form(flag).check({"a": False}, "'ok'") == {"a": False}


def test_the_error_names_every_field() -> None:
    asked = form({"key": "a", "type": "boolean"}, {"key": "b", "required": True})
    with pytest.raises(FormError, match=r"'ok' does not fit.*: a: exp.*; b: required") as caught:
        asked.check({"a": 3}, "'ok'")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(FormError, match="an object with the fields 'a', 'b', not 'yes'"):
        asked.check("yes", "'ok'")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("text", "_form is an object"),
        ({"title": 3}, "_form.title is a text, not 3"),
        ({"fields": {}}, "_form.fields is a list"),
        ({"context": []}, "_form.context is an object"),
        ({"fields": ["a"]}, r"_form.fields\[0\] is an object"),
        ({"fields": [{"type": "text"}]}, r"_form.fields\[0\] has no key"),
        ({"fields": [{"key": "a"}, {"name": "a"}]}, "'a' twice"),
        ({"fields": [{"key": "a", "type": "color"}]}, "type 'color' is none of text, "),
        ({"fields": [{"key": "a", "type": "select"}]}, "a select has options"),
        ({"fields": [{"key": "a", "type": "select", "options": [{"label": "x"}]}]}, "no value"),
        ({"fields": [{"key": "a", "type": "number", "min": "1"}]}, "min is a number"),
        ({"fields": [{"key": "a", "type": "number", "max": 10**400}]}, "max is a number"),
        ({"fields": [{"key": "a", "type": "number", "min": 2, "max": 1}]}, "more than max"),
        ({"fields": [{"key": "a", "type": "number", "default": "x"}]}, "default does not fit"),
        ({"fields": [{"key": "a", "pattern": "("}]}, "pattern"),
    ],
)
def test_a_broken_form_says_where(broken: Any, why: str) -> None:
    with pytest.raises(forms.BrokenForm, match=why):
        forms.parse(broken)


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    n: int


class Wanted(BaseModel):
    """What we want to know."""

    approved: bool
    name: str = Field(min_length=2, description="Yours")
    rating: int | None = Field(default=None, ge=1, le=5)
    color: Color = Color.RED
    sizes: list[Literal["s", "m"]] = ["m"]
    share: float = 0.5
    inner: Inner | None = None


def test_a_model_is_a_form() -> None:
    asked = forms.parse(forms.of_schema(Wanted.model_json_schema()))
    assert (asked.title, asked.description) == ("Wanted", "What we want to know.")
    assert [(f.key, f.type, f.required) for f in asked.fields] == [
        ("approved", "boolean", True),
        ("name", "text", True),
        ("rating", "integer", False),
        ("color", "select", False),
        ("sizes", "multiselect", False),
        ("share", "number", False),
        ("inner", "json", False),
    ]
    filled = asked.check({"approved": True, "name": "Ann"}, "'ok'")
    assert Wanted.model_validate(filled) == Wanted(approved=True, name="Ann")
    with pytest.raises(FormError) as caught:
        asked.check({"name": "A", "rating": 6, "color": "green", "sizes": ["l"]}, "'ok'")
    assert set(caught.value.fields) == {"approved", "name", "rating", "color", "sizes"}
