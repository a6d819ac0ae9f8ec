"""Polos: durable workflows with typed state, for Python."""

from polos._version import __version__
from polos.app import Polos, PolosClient, Worker
from polos.client.handle import ExecutionHandle
from polos.core.blob import Blob
from polos.core.secret import Secret
from polos.errors import (
    AttemptSealed,
    ConflictError,
    ExecutionCancelledError,
    ExecutionFailedError,
    ExecutionNotFoundError,
    NonDeterminismError,
    PolosError,
    StateTooLargeError,
    StepExecutionError,
    StepTimeoutError,
    WorkflowTimeoutError,
)
from polos.workflow.batch import BatchStepResult, BatchWorkflowInput, batch_invoke
from polos.workflow.context import WorkflowContext
from polos.workflow.definition import workflow
from polos.workflow.queue import Queue, queue
from polos.workflow.registry import get_all_workflows, get_workflow
from polos.workflow.runnable import Workflow
from polos.workflow.spilled import Spilled
from polos.workflow.state import WorkflowState

__all__ = [
    "AttemptSealed",
    "BatchStepResult",
    "BatchWorkflowInput",
    "Blob",
    "ConflictError",
    "ExecutionCancelledError",
    "ExecutionFailedError",
    "ExecutionHandle",
    "ExecutionNotFoundError",
    "NonDeterminismError",
    "Polos",
    "PolosClient",
    "PolosError",
    "Queue",
    "Secret",
    "Spilled",
    "StateTooLargeError",
    "StepExecutionError",
    "StepTimeoutError",
    "Worker",
    "Workflow",
    "WorkflowContext",
    "WorkflowState",
    "WorkflowTimeoutError",
    "__version__",
    "batch_invoke",
    "get_all_workflows",
    "get_workflow",
    "queue",
    "workflow",
]
