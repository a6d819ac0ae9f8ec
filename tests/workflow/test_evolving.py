"""Chains of migrations, as authors declare them."""

import warnings
from typing import Any

import pytest

from polos import WorkflowState, migrate
from polos.core import delta
from polos.errors import InvalidStateError, StateSchemaError
from polos.workflow.evolving import upgraded, version_of
from polos.workflow.state import StateSchema


class Cart(WorkflowState, version=3):
    lines: list[dict[str, Any]] = []
    note: str = ""

    @migrate(from_version=1)
    @staticmethod
    def _(data: dict[str, Any]) -> dict[str, Any]:
        data["lines"] = data.pop("items")
        return data

    @migrate(from_version=2)
    @staticmethod
    def _(data: dict[str, Any]) -> dict[str, Any]:
        data["lines"] = [{"sku": sku} for sku in data["lines"]]
        return data


def test_functions_of_one_name_make_a_chain():
    assert version_of(Cart) == 3
    assert upgraded(Cart, {"items": ["a"]}, 1) == {"lines": [{"sku": "a"}]}
    assert upgraded(Cart, {"lines": ["a"]}, 2) == {"lines": [{"sku": "a"}]}
    assert Cart().lines == []
    assert set(Cart.model_fields) == {"lines", "note"}


def test_a_record_of_an_older_version_becomes_one_of_this():
    schema = StateSchema(Cart)
    fields = schema.upgraded({"items": b'["a"]'}, None)
    assert delta.document(fields) == '{"lines":[{"sku":"a"}],"note":""}'


def test_a_record_of_this_version_is_left_alone():
    schema = StateSchema(Cart)
    fields = {"lines": b"[ ]"}
    assert schema.upgraded(fields, 3) is fields


def test_class_methods_and_static_methods_are_migrations_too():
    class State(WorkflowState, version=3):
        n: int = 0
        unit: str = "m"

        @classmethod
        @migrate(from_version=1)
        def one(cls, data: dict[str, Any]) -> dict[str, Any]:
            return {"n": data["n"], "unit": cls.model_fields["unit"].default}

        @migrate(from_version=2)
        @staticmethod
        def two(data: dict[str, Any]) -> dict[str, Any]:
            return data | {"n": data["n"] + 1}

    assert upgraded(State, {"n": 1}, 1) == {"n": 2, "unit": "m"}


def test_a_bare_function_is_one_too():
    class State(WorkflowState, version=2):
        n: int = 0

        @migrate(from_version=1)
        def up(data: Any) -> Any:  # pyright: ignore[reportSelfClsParameterName]
            return data | {"n": 7}

    assert upgraded(State, {}, 1) == {"n": 7}


def test_a_subclass_goes_on_with_the_chain_of_its_base():
    class More(Cart, version=4):
        extra: int = 0

        @migrate(from_version=3)
        @staticmethod
        def more(data: dict[str, Any]) -> dict[str, Any]:
            return data | {"extra": 1}

    assert upgraded(More, {"items": []}, 1) == {"lines": [], "extra": 1}
    assert version_of(type("Same", (Cart,), {})) == 3


def test_a_chain_may_begin_late():
    class Late(WorkflowState, version=4):
        n: int = 0

        @migrate(from_version=3)
        @staticmethod
        def _(data: dict[str, Any]) -> dict[str, Any]:
            return data

    with pytest.raises(InvalidStateError, match=r"add @migrate\(from_version=1\)"):
        upgraded(Late, {}, 1)


def test_a_gap_is_refused_where_the_class_is_made():
    with pytest.raises(StateSchemaError, match="from version 2 to 3 is missing"):

        class Gap(WorkflowState, version=3):
            @migrate(from_version=1)
            @staticmethod
            def _(data: dict[str, Any]) -> dict[str, Any]:
                return data


def test_two_migrations_from_one_version_are_refused():
    with pytest.raises(StateSchemaError, match="two migrations from version 1"):

        class Twice(WorkflowState, version=2):
            @migrate(from_version=1)
            @staticmethod
            def one(data: dict[str, Any]) -> dict[str, Any]:
                return data

            @migrate(from_version=1)
            @staticmethod
            def other(data: dict[str, Any]) -> dict[str, Any]:
                return data


def test_a_migration_that_cannot_be_called_with_the_data_is_refused():
    with pytest.raises(StateSchemaError, match="from version 1 is async"):

        class Async(WorkflowState, version=2):
            @migrate(from_version=1)
            @staticmethod
            async def _(data: dict[str, Any]) -> dict[str, Any]:
                return data

    with pytest.raises(StateSchemaError, match="a migration has no self"):

        class Bound(WorkflowState, version=2):
            @migrate(from_version=1)
            def _(self, data: dict[str, Any]) -> dict[str, Any]:
                return data


def test_a_migration_beyond_the_version_is_refused():
    with pytest.raises(StateSchemaError, match="say version=2"):

        class Beyond(WorkflowState):
            @migrate(from_version=1)
            @staticmethod
            def _(data: dict[str, Any]) -> dict[str, Any]:
                return data


@pytest.mark.parametrize("version", [0, -1, True, "2", 1.0])
def test_a_version_is_a_number_of_one_or_more(version: Any):
    with pytest.raises(StateSchemaError, match="int of 1 or more"):
        type("Odd", (WorkflowState,), {}, version=version)
    with pytest.raises(StateSchemaError, match="int of 1 or more"):
        migrate(from_version=version)


def test_a_newer_state_is_refused():
    with pytest.raises(InvalidStateError, match=r"state of version 4 .* newer code wrote it"):
        StateSchema(Cart).upgraded({}, 4)


def test_a_migration_that_fails_is_named():
    with pytest.raises(InvalidStateError, match="migration from version 1 raised KeyError"):
        StateSchema(Cart).upgraded({}, 1)


def test_a_migration_that_returns_nothing_is_named():
    class Forgetful(WorkflowState, version=2):
        @migrate(from_version=1)
        @staticmethod
        def _(data: dict[str, Any]) -> Any:
            del data

    with pytest.raises(InvalidStateError, match="returned a NoneType; return the dict"):
        upgraded(Forgetful, {}, 1)


def test_a_given_state_may_say_its_version():
    schema = StateSchema(Cart)
    model = schema.initial({"$version": 1, "items": ["a"]})
    assert model == Cart(lines=[{"sku": "a"}])
    with pytest.raises(InvalidStateError, match="version"):
        schema.initial({"$version": "1"})


def test_no_warning_comes_of_a_chain():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        StateSchema(Cart)
