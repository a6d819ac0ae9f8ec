"""Named queues, and the forms in which one may be written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from polos.core import ids
from polos.errors import WorkflowDefinitionError


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that several workflows can share.

    At most `concurrency_limit` executions with the same concurrency key run at once; None means
    no limit.
    """

    name: str
    concurrency_limit: int | None = None

    def __post_init__(self) -> None:
        # Queues come from untyped dicts too, so the annotations are no guarantee.
        name, limit = cast("Any", self.name), cast("Any", self.concurrency_limit)
        if not isinstance(name, str) or not name or not ids.is_storable(name):
            raise WorkflowDefinitionError(f"a queue needs a non-empty str as name, not {name!r}")
        if limit is None:
            return
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise WorkflowDefinitionError(
                f"queue {name!r}: concurrency_limit must be an int of at least 1, or None for no "
                f"limit, not {limit!r}"
            )


def queue(name: str, concurrency_limit: int | None = None) -> Queue:
    """Return a queue, for `@workflow(queue=...)`."""
    return Queue(name, concurrency_limit)


def parse_queue(value: object, workflow_id: str) -> Queue | None:
    """Return the queue that `value` describes, or None for the workflow's own.

    `value` is a name, a `Queue`, `{"name": ..., "concurrency_limit": ...}` (the name defaults to
    the workflow's id) or None.
    """
    if value is None or isinstance(value, Queue):
        return value
    if isinstance(value, str):
        return Queue(value)
    if not isinstance(value, Mapping):
        raise WorkflowDefinitionError(
            f"Invalid queue type: {type(value).__name__}. Expected a name, a Queue or a dict like "
            '{"name": "mail", "concurrency_limit": 5}'
        )
    given = cast("Mapping[str, Any]", value)
    unknown = [key for key in given if key not in ("name", "concurrency_limit")]
    if unknown:
        raise WorkflowDefinitionError(
            f"a queue has 'name' and 'concurrency_limit', not {unknown[0]!r}"
        )
    return Queue(given.get("name", workflow_id), given.get("concurrency_limit"))
