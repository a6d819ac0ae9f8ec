"""Recorded state: deltas lead from any record to any other, byte for byte."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos.core import delta
from polos.core.delta import Fields

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)
LAYOUTS: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"indent": 1}]
STYLES = st.sampled_from(LAYOUTS)


@st.composite
def records(draw: st.DrawFn) -> Fields:
    names = draw(st.lists(st.text(max_size=3), max_size=5, unique=True))
    return {name: draw(texts()) for name in names}


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    escaped = draw(st.booleans())
    return json.dumps(draw(JSON), ensure_ascii=escaped, **draw(STYLES)).encode()


def written(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def assert_leads_to(old: Fields, new: Fields) -> None:
    body = delta.diff(old, new)
    if body is None:
        assert list(old.items()) == list(new.items())
        return
    assert body.startswith("[")
    assert json.loads(body)
    reached = delta.apply(old, body)
    assert list(reached.items()) == list(new.items())


@given(records(), records())
def test_a_delta_leads_from_any_record_to_any_other(old: Fields, new: Fields) -> None:
    assert_leads_to(old, new)


@given(records(), st.randoms(), st.text(max_size=3), texts())
def test_a_delta_leads_to_an_edited_record(
    old: Fields, random: Random, name: str, text: bytes
) -> None:
    names = list(old)
    random.shuffle(names)
    new = {each: old[each] for each in names[1:]}
    new[name] = text
    assert_leads_to(old, new)


@given(st.text(), st.text(), st.text(), st.text())
def test_a_delta_cuts_between_characters(start: str, old: str, new: str, end: str) -> None:
    assert_leads_to({"x": written(start + old + end)}, {"x": written(start + new + end)})


@given(records())
def test_a_snapshot_comes_back_byte_for_byte(fields: Fields) -> None:
    body = delta.document(fields)
    assert body.startswith("{")
    assert list(delta.split(body).items()) == list(fields.items())
    assert delta.apply({"old": b"1"}, body) == fields
    assert delta.encoded(fields) == body.encode()
    assert delta.size(fields) == len(body.encode())
    assert list(json.loads(body)) == list(fields)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), STYLES, st.booleans())
def test_split_keeps_the_bytes_of_documents_of_others(
    value: dict[str, object], style: dict[str, Any], escaped: bool
) -> None:
    text = json.dumps(value, ensure_ascii=escaped, **style)
    fields = delta.split(f" \n{text}\t")
    assert repr({name: json.loads(each) for name, each in fields.items()}) == repr(value)
    assert all(each.strip() == each and each.decode() in text for each in fields.values())


def test_equal_records_have_no_delta() -> None:
    assert delta.diff({}, {}) is None
    assert delta.diff({"a": b"1"}, {"a": b"1"}) is None


def test_a_delta_is_written_by_field() -> None:
    old = {"gone": b"1", "list": b"[1,2]", "same": b"null"}
    new = {"list": b"[1,2,3]", "same": b"null", "more": b'"x"'}
    assert delta.diff(old, new) == '[["gone"],["list",4,1,",3"],["more",0,0,"\\"x\\""]]'


def test_a_changed_order_is_written() -> None:
    old, new = {"a": b"1", "b": b"2"}, {"b": b"2", "new": b"3", "a": b"1"}
    body = delta.diff(old, new)
    assert body == '[["new",0,0,"3"],[["b","new","a"]]]'
    assert list(delta.apply(old, body)) == ["b", "new", "a"]


def test_applying_changes_no_record() -> None:
    old = {"a": b"1", "b": b"2"}
    delta.apply(old, '[["a"],["b",0,0,"3"]]')
    assert old == {"a": b"1", "b": b"2"}


@pytest.mark.parametrize("at", [0, 1, 65_535, 65_536, 65_537, 250_000, 500_000])
def test_a_delta_is_as_small_as_the_change(at: int) -> None:
    items = [f"item {number}" for number in range(40_000)]
    old = {"items": written(items), "count": b"40000"}
    assert len(old["items"]) > 500_000
    appended = {"items": written([*items, "one more"]), "count": b"40001"}
    body = delta.diff(old, appended)
    assert body is not None
    assert len(body) < 70
    assert delta.apply(old, body) == appended
    inside = {**old, "items": old["items"][:at] + "é".encode() + old["items"][at:]}
    body = delta.diff(old, inside)
    assert body is not None
    assert len(body) < 40
    assert delta.apply(old, body) == inside


def test_a_delta_against_another_record_is_refused() -> None:
    body = delta.diff({"a": b'"a long text"'}, {"a": b'"a long test"'})
    assert body is not None
    with pytest.raises(ValueError, match="does not belong"):
        delta.apply({"a": b"1"}, body)


def test_numbers_of_any_length_are_kept() -> None:
    number = "1" * 5_000
    assert delta.split('{"n":%s}' % number) == {"n": number.encode()}  # noqa: UP031


@pytest.mark.parametrize(
    "document", ["", "[]", "{", '{"a"}', '{"a":}', '{"a":1,}', '{"a":1}{', "{1:2}", '{"a" 1}']
)
def test_what_is_not_an_object_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        delta.split(document)
