"""The data types of the public interface; each is the very class that `polos` itself exports."""

from polos.types.types import BatchStepResult, BatchWorkflowInput

__all__ = ["BatchStepResult", "BatchWorkflowInput"]
