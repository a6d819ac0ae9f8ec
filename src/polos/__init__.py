"""Polos: durable workflows with typed state, for Python."""

from polos._version import __version__
from polos.app import Polos, PolosClient, Worker
from polos.client.answering import Resumed
from polos.client.handle import ExecutionHandle
from polos.client.streams import Chunk
from polos.core.blob import Blob
from polos.core.secret import Secret
from polos.errors import (
    AlreadyResumedError,
    AttemptSealed,
    ConflictError,
    ExecutionCancelledError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    FormError,
    HistoryTooLongError,
    NonDeterminismError,
    PolosError,
    StateTooLargeError,
    StepExecutionError,
    StepNotFoundError,
    StepTimeoutError,
    WaitTimeoutError,
    WorkflowTimeoutError,
)
from polos.features import events
from polos.workflow.batch import BatchStepResult, BatchWorkflowInput, batch_invoke
from polos.workflow.context import WorkflowContext
from polos.workflow.definition import workflow
from polos.workflow.effects import Done, NotDone, Unknown
from polos.workflow.event import BatchEventPayload, EventPayload
from polos.workflow.evolving import migrate
from polos.workflow.hook import HookAction, HookContext, HookResult, hook
from polos.workflow.queue import Queue, queue
from polos.workflow.registry import get_all_workflows, get_workflow
from polos.workflow.runnable import Workflow
from polos.workflow.spilled import Spilled
from polos.workflow.state import WorkflowState

__all__ = [
    "AlreadyResumedError",
    "AttemptSealed",
    "BatchEventPayload",
    "BatchStepResult",
    "BatchWorkflowInput",
    "Blob",
    "Chunk",
    "ConflictError",
    "Done",
    "EventPayload",
    "ExecutionCancelledError",
    "ExecutionFailedError",
    "ExecutionHandle",
    "ExecutionNotFoundError",
    "FormError",
    "HistoryTooLongError",
    "HookAction",
    "HookContext",
    "HookResult",
    "NonDeterminismError",
    "NotDone",
    "Polos",
    "PolosClient",
    "PolosError",
    "Queue",
    "Resumed",
    "Secret",
    "Spilled",
    "StateTooLargeError",
    "StepExecutionError",
    "StepNotFoundError",
    "StepTimeoutError",
    "Unknown",
    "WaitTimeoutError",
    "Worker",
    "Workflow",
    "WorkflowContext",
    "WorkflowState",
    "WorkflowTimeoutError",
    "__version__",
    "batch_invoke",
    "events",
    "get_all_workflows",
    "get_workflow",
    "hook",
    "migrate",
    "queue",
    "workflow",
]
