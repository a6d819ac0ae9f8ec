"""Which worker may run which execution: deployments and code versions on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence

from polos.core.model import WorkerRecord
from polos.core.upkeep import Need

ANY_DEPLOYMENT = "default"
"""An execution of this deployment, or of none, is anyone's to run."""

NOBODY = "no running process"
"""Every reason of `why_nobody` begins so; other reasons for being blocked do not."""


def runs(worker: WorkerRecord, need: Need) -> bool:
    """Say whether the worker may run an execution that needs this."""
    if need.workflow_id not in json.loads(worker.workflows):
        return False
    if not _is_anyones(need) and need.deployment_id != worker.deployment_id:
        return False
    if worker.versions is None or need.code_version is None:
        return True
    return json.loads(worker.versions).get(need.workflow_id) == need.code_version


def why_nobody(workers: Sequence[WorkerRecord], need: Need) -> str | None:
    """Return why no one of these workers may run it; None if one may."""
    if any(runs(worker, need) for worker in workers):
        return None
    if _is_anyones(need):
        unrestricted = Need(need.workflow_id, None, None)
    else:
        unrestricted = Need(need.workflow_id, need.deployment_id, None)
    if any(runs(worker, unrestricted) for worker in workers):
        return f"{NOBODY} has the code version {need.code_version} of {need.workflow_id}"
    if not _is_anyones(need):
        return f"{NOBODY} of deployment {need.deployment_id} has registered {need.workflow_id}"
    return f"{NOBODY} has registered the workflow {need.workflow_id}"


def sort_out(
    workers: Sequence[WorkerRecord], blocked: Sequence[Need], due: Sequence[Need]
) -> tuple[list[Need], list[tuple[Need, str]]]:
    """Return what was blocked and may be run now, and what is due and nobody may run, with why."""
    released = [need for need in blocked if why_nobody(workers, need) is None]
    reasons = [(need, why_nobody(workers, need)) for need in due]
    return released, [(need, why) for need, why in reasons if why is not None]


def _is_anyones(need: Need) -> bool:
    return need.deployment_id is None or need.deployment_id == ANY_DEPLOYMENT
