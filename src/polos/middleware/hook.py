"""Hooks under the module path of the reference SDK."""

from polos.workflow.hook import HookAction, HookContext, HookResult, hook

__all__ = ["HookAction", "HookContext", "HookResult", "hook"]
