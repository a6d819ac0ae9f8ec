"""Filters of events: where they look, and what they take for the same."""

import json
from typing import Any

import pytest

from polos.core.events import dump_filter, fits
from polos.core.model import Event
from polos.errors import UsageError


def fit(where: Any, data: Any) -> bool:
    return fits(dump_filter(where), Event("t", "id", "created", json.dumps(data), 0))


@pytest.mark.parametrize(
    ("where", "data"),
    [
        ({"n": 1}, {"n": 1.0}),
        ({"n": ("=", 1)}, {"n": 1}),
        ({"n": None}, {"n": None}),
        ({"n": ("!=", 1)}, {"n": True}),
        ({"n": ("in", ["ü", 0])}, {"n": 0}),
        ({"n": ("in", (None,))}, {"n": None}),
        ({"n": {"a": [1]}}, {"n": {"a": [1.0]}}),
        ({"order.items[0].id": 7}, {"order": {"items": [{"id": 7}]}}),
        ({"order.items.0.id": 7}, {"order": {"items": [{"id": 7}]}}),
        ({"items[-1]": 2}, {"items": [1, 2]}),
        ({'by["a.b"]': 1}, {"by": {"a.b": 1}}),
        ({"event_type": "created", "n": ("<", "b")}, {"n": "a"}),
        ({"event_type": "own"}, {"event_type": "own"}),
    ],
)
def test_fits(where: Any, data: Any) -> None:
    assert fit(where, data)


@pytest.mark.parametrize(
    ("where", "data"),
    [
        ({"n": 1}, {"n": True}),
        ({"n": False}, {"n": 0}),
        ({"n": ("in", ["ü", 0])}, {"n": False}),
        ({"n": ("in", [])}, {"n": None}),
        ({"n": [1]}, {"n": [True]}),
        ({"n": {"a": 1}}, {"n": {"a": 1, "b": 2}}),
        ({"n": None}, {}),
        ({"n": ("!=", 1)}, {}),
        ({"n": (">", 0)}, {"n": True}),
        ({"n": (">", 0)}, {"n": "1"}),
        ({"n": (">=", 0)}, {"n": None}),
        ({"items[2]": 2}, {"items": [1, 2]}),
        ({"n.a": 1}, {"n": 1}),
        ({"event_type": "paid"}, {}),
    ],
)
def test_does_not_fit(where: Any, data: Any) -> None:
    assert not fit(where, data)


@pytest.mark.parametrize("path", ["", ".", "a..b", "a[", "a b", 5, None])
def test_a_path_that_cannot_be_read_is_refused(path: Any) -> None:
    with pytest.raises(UsageError, match="path"):
        dump_filter({path: 1})
