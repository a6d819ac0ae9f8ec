"""The paths by which programs of the reference SDK import data types lead to the same classes."""

import polos
import polos.types
import polos.types.types


def test_each_is_the_class_that_the_package_exports() -> None:
    for module in (polos.types, polos.types.types):
        assert module.BatchStepResult is polos.BatchStepResult
        assert module.BatchWorkflowInput is polos.BatchWorkflowInput
