"""The data types of the public interface, by the path that programs of the reference SDK use."""

from polos.workflow.batch import BatchStepResult, BatchWorkflowInput

__all__ = ["BatchStepResult", "BatchWorkflowInput"]
