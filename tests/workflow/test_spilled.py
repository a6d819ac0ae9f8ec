"""The mark of large state fields: where it holds, and where it would mark nothing."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from polos import Spilled, WorkflowContext, WorkflowState, workflow
from polos.errors import WorkflowDefinitionError
from polos.workflow import spilled


class Inner(BaseModel):
    rows: Annotated[list[str], Spilled] = []


class Tree(BaseModel):
    below: "list[Tree]" = []


def test_it_marks_whole_fields() -> None:
    class Fine(WorkflowState):
        plain: list[str] = []
        tree: Tree = Tree()
        rows: Annotated[list[str], Spilled] = []
        text: Annotated[str, Spilled()] = ""
        maybe: Annotated[str | None, Spilled] = None
        outside: Annotated[str, Spilled] | None = None

    assert spilled.fields_of(Fine) == {"rows", "text", "maybe", "outside"}


@pytest.mark.parametrize(
    "annotation", [Inner, list[Inner], dict[str, Inner | None], list[Annotated[str, Spilled]]]
)
def test_a_mark_inside_of_a_field_is_refused(annotation: Any) -> None:
    state = type("Bad", (WorkflowState,), {"__annotations__": {"field": annotation}})
    with pytest.raises(WorkflowDefinitionError, match=r"'field' of Bad: Spilled marks a whole"):

        @workflow(id="bad", state_schema=state)
        async def bad(ctx: WorkflowContext) -> None: ...
