"""Annotations that are strings, as they all are in a module that begins like this one."""

# Every spelling of an annotation is a case of its own.
# ruff: noqa: UP037, UP045

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

import pytest
from pydantic import BaseModel

from polos.workflow import hints, registry
from polos.workflow.definition import Workflow, workflow
from polos.workflow.payload import load, prepare

if TYPE_CHECKING:
    from decimal import Decimal as Nowhere  # of all that is imported only for the type checker

    class WorkflowContext: ...


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())


class Model(BaseModel):
    a: int


async def model(ctx: WorkflowContext, payload: Model) -> Model: ...
async def union(ctx: WorkflowContext, payload: Model | dict[str, Any]) -> None: ...
async def optional(ctx: WorkflowContext, payload: Optional[Model]) -> int: ...
async def quoted(ctx: "WorkflowContext", payload: "list[Model]") -> "list[Model]": ...
async def builtin(ctx: WorkflowContext, payload: int) -> dict[str, int]: ...
async def anything(ctx: WorkflowContext, payload: Any): ...


@pytest.mark.parametrize(
    ("func", "payload", "result"),
    [
        (model, Model, Model),
        (union, Model | dict[str, Any], None),
        (optional, Optional[Model], int),
        (quoted, list[Model], list[Model]),
        (builtin, int, dict[str, int]),
        (anything, Any, None),
    ],
)
def test_names_of_the_module(func: Any, payload: Any, result: Any) -> None:
    made = workflow(func)
    assert made.payload_hint == payload
    assert made.result_hint == result


def test_classes_local_to_a_function() -> None:
    class Local(BaseModel):
        a: int

    @dataclass
    class Output:
        a: int

    @workflow
    async def bare(ctx: WorkflowContext, payload: Local) -> Output:
        return Output(payload.a)

    @workflow(id="called")
    async def called(ctx: WorkflowContext, payload: list[Local] | None) -> Output | None: ...

    assert (bare.payload_hint, bare.result_hint) == (Local, Output)
    assert (called.payload_hint, called.result_hint) == (list[Local] | None, Output | None)
    assert load(bare, {"a": 1}) == Local(a=1)


def test_a_workflow_that_is_made_elsewhere_finds_names_in_the_closure() -> None:
    class Local(BaseModel):
        a: int

    async def func(ctx: WorkflowContext, payload: Local) -> None:
        assert Local

    assert Workflow("w", func).payload_hint is Local


@workflow
async def early(ctx: WorkflowContext, payload: Later) -> list[Later]: ...


def test_a_class_that_is_defined_after_the_workflow() -> None:
    assert early.payload_hint is Later
    assert early.result_hint == list[Later]
    assert "Later" in repr(early)


class Later(BaseModel):
    b: int


def test_a_local_class_that_is_defined_after_the_workflow_and_used_in_it() -> None:
    @workflow
    async def first(ctx: WorkflowContext, payload: Late) -> None:
        Late(a=1)

    assert "payload" not in repr(first)

    class Late(BaseModel):
        a: int

    assert prepare(first, {"a": "1"}) == Late(a=1)


def test_an_annotation_that_names_nothing_lets_everything_through_with_one_warning() -> None:
    @workflow
    async def lost(ctx: WorkflowContext, payload: Nowhere) -> Nowhere: ...

    with pytest.warns(RuntimeWarning, match=r"lost'.*'Nowhere' names nothing.*plain JSON") as seen:
        results = prepare(lost, {"a": 1}), load(lost, [1]), lost.payload_hint
    assert results == ({"a": 1}, [1], Any)
    assert len(seen) == 1
    assert lost.result_hint is None
    with pytest.raises(ValueError, match="requires a payload"):
        prepare(lost, None)


def test_none_is_let_through_where_the_text_of_a_lost_annotation_says_so() -> None:
    @workflow
    async def lost(ctx: WorkflowContext, payload: Nowhere | None = None) -> None: ...

    @workflow
    async def lost_too(ctx: WorkflowContext, payload: Optional[Nowhere]) -> None: ...

    assert prepare(lost, None) is None
    assert prepare(lost_too, None) is None


@pytest.mark.parametrize("text", ["not a type", "1 +", "Model.missing", "Model[5]"])
def test_what_is_no_annotation_at_all_counts_as_lost(text: str) -> None:
    async def func(ctx: WorkflowContext, payload: int) -> None: ...

    func.__annotations__["payload"] = text
    assert not workflow(func).signature.payload_is_resolved


def test_a_resolved_annotation_is_checked_like_any_other() -> None:
    class Opaque:
        pass

    async def func(ctx: WorkflowContext, payload: Opaque) -> None: ...

    with pytest.raises(TypeError, match="nobody knows how to read Opaque"):
        workflow(func)

    async def wrong(ctx: int) -> None: ...

    with pytest.raises(TypeError, match="first parameter 'ctx'"):
        workflow(wrong)


def test_the_result_of_any_function() -> None:
    class Local(BaseModel):
        a: int

    def step() -> Local:
        return Local(a=1)

    def lost() -> Nowhere: ...

    def nothing() -> None: ...

    results = [step, model, lost, nothing, print, lambda: 1]
    assert [hints.result_of(func) for func in results] == [Local, Model, None, None, None, None]
