"""Deployments and code versions: who may claim what, what nobody may run, and who releases it."""

from typing import Any

import pytest

from polos.core.model import Status, Survey
from polos.store.protocol import Store
from tests.store.records import (
    SECOND,
    T0,
    change,
    claim_all,
    new_start,
    owned_start,
    read,
    worker,
    write,
    write_all,
)

ODD = 'od\'d "id" [1]'
"""A workflow id that needs care in SQL and in paths of JSON."""


async def blocked_reason(store: Store, id: str) -> str | None:
    found = await read(store, id)
    assert (found.status is Status.WAITING) == (found.blocked_reason is not None)
    return found.blocked_reason


async def test_the_code_version_of_a_start_is_kept(store: Store) -> None:
    await write_all(store, new_start("a", code_version="1"), new_start("b"))
    assert (await read(store, "a")).code_version == "1"
    assert (await read(store, "b")).code_version is None


async def test_a_worker_is_read_as_it_was_entered(store: Store) -> None:
    plain, strict = worker("w1"), worker("w2", deployment_id="d", versions={"wf": "1", ODD: "2"})
    await store.register_worker(plain)
    await store.register_worker(strict)
    assert sorted(await store.live_workers(), key=lambda each: each.id) == [plain, strict]
    await store.register_worker(worker("w2", deployment_id="e"))
    assert (await store.live_workers())[-1] == worker("w2", deployment_id="e")


@pytest.mark.parametrize(
    ("of_execution", "of_worker", "claims"),
    [
        (None, None, True),
        (None, "blue", True),
        ("default", None, True),
        ("default", "blue", True),
        ("blue", "blue", True),
        ("blue", None, False),
        ("blue", "default", False),
        ("blue", "green", False),
    ],
)
async def test_an_execution_of_a_deployment_is_for_workers_of_that_deployment(
    store: Store, of_execution: str | None, of_worker: str | None, claims: bool
) -> None:
    await store.register_worker(worker("w1", takes_queue=True, deployment_id=of_worker))
    await write_all(store, new_start("a", deployment_id=of_execution))
    assert await claim_all(store, "w1", takes_queue=True) == (["a"] if claims else [])


@pytest.mark.parametrize(
    ("of_execution", "of_worker", "claims"),
    [
        (None, None, True),
        ("1", None, True),
        (None, {"wf": "1"}, True),
        ("1", {"wf": "1", "other": "2"}, True),
        ("2", {"wf": "1", "other": "2"}, False),
        ("1", {"other": "1"}, False),
        ("1", {}, False),
    ],
)
async def test_a_worker_with_versions_claims_what_its_code_started(
    store: Store, of_execution: str | None, of_worker: dict[str, str] | None, claims: bool
) -> None:
    await store.register_worker(worker("w1", takes_queue=True, versions=of_worker))
    await write_all(store, new_start("a", code_version=of_execution))
    assert await claim_all(store, "w1", takes_queue=True) == (["a"] if claims else [])


async def test_ids_of_workflows_are_compared_whole(store: Store) -> None:
    await store.register_worker(worker("w1", ODD, takes_queue=True, versions={ODD: "1"}))
    starts = [new_start("a", ODD, code_version="1"), new_start("b", ODD, code_version="2")]
    await write_all(store, *starts)
    found = await store.claimable("w1", [ODD], True, T0, 10)
    assert [key[1] for key in found] == ["a"]


async def test_a_claim_by_a_worker_with_versions_sets_the_version_that_is_missing(
    store: Store,
) -> None:
    await store.register_worker(worker("w1", takes_queue=True, versions={"wf": "1"}))
    await write_all(store, new_start("a"), new_start("b", code_version="1"))
    found = await store.claimable("w1", ["wf"], True, T0, 10)
    works = await store.claim("w1", found, {}, T0)
    assert [work.execution.code_version for work in works] == ["1", "1"]
    assert (await read(store, "a")).code_version == "1"
    await store.register_worker(worker("w2", takes_queue=True))
    await write_all(store, new_start("c"))
    assert await claim_all(store, "w2", takes_queue=True) == ["c"]
    assert (await read(store, "c")).code_version is None


@pytest.mark.parametrize(
    ("deployment", "version", "claims"), [("d", "1", True), ("e", "1", False), ("d", "2", False)]
)
async def test_what_the_dead_left_and_what_waits_is_for_those_who_may_run_it(
    store: Store, deployment: str, version: str, claims: bool
) -> None:
    options: dict[str, Any] = {"deployment_id": "d", "code_version": "1"}
    await store.register_worker(worker("w1", deployment_id="d"))
    await store.register_worker(worker("w2", deployment_id=deployment, versions={"wf": version}))
    await write_all(store, owned_start("ran", "w1", **options))
    await write_all(store, owned_start("waits", "w1", **options))
    await write(store, change("waits", 1, status=Status.WAITING, wake_at=T0))
    await store.stop_worker("w1", T0, crashed=True)
    assert await claim_all(store, "w2") == (["ran", "waits"] if claims else [])


async def test_next_wake_is_of_what_the_worker_may_run(store: Store) -> None:
    await store.register_worker(worker("w1"))
    await store.register_worker(worker("w2", deployment_id="d"))
    await write_all(store, owned_start("a", deployment_id="d"))
    await write(store, change("a", 1, status=Status.WAITING, wake_at=T0 + 5))
    assert await store.next_wake("w1", ["wf"]) is None
    assert await store.next_wake("w2", ["wf"]) == T0 + 5


async def test_what_no_live_worker_may_run_is_parked_with_its_own_reason(store: Store) -> None:
    await store.register_worker(worker("w1", deployment_id="green", versions={"wf": "2"}))
    await write_all(
        store,
        new_start("deployment", deployment_id="blue", code_version="1"),
        new_start("code", deployment_id="green", code_version="1"),
        new_start("code of any", code_version="1"),
        new_start("workflow", "gone", code_version="1"),
        new_start("fine", deployment_id="green", code_version="2"),
        new_start("young", deployment_id="blue", created_at=T0 + 5 * SECOND),
    )
    await store.sort_out(T0 + SECOND)
    assert {id: await blocked_reason(store, id) for id in ("fine", "young")} == {
        "fine": None,
        "young": None,
    }
    reasons = [
        await blocked_reason(store, id) for id in ("deployment", "code", "code of any", "workflow")
    ]
    assert reasons == [
        "no running process of deployment blue has registered wf",
        "no running process has the code version 1 of wf",
        "no running process has the code version 1 of wf",
        "no running process has registered the workflow gone",
    ]
    assert (await read(store, "code")).wake_at is None


async def test_a_wait_that_is_over_and_that_nobody_may_run_is_parked_too(store: Store) -> None:
    await store.register_worker(worker("w1"))
    for id, wake_at in (("due", T0), ("asleep", T0 + 10**12), ("open", None)):
        await write_all(store, owned_start(id, deployment_id="blue"))
        await write(store, change(id, 1, status=Status.WAITING, wake_at=wake_at))
    await store.sort_out(T0 + SECOND)
    assert (await read(store, "due")).blocked_reason is not None
    assert (await read(store, "asleep")).blocked_reason is None
    assert (await read(store, "open")).blocked_reason is None


@pytest.mark.parametrize(
    "one_who_may",
    [worker("w2", deployment_id="blue"), worker("w2", deployment_id="blue", versions={"wf": "1"})],
)
async def test_it_is_released_when_a_worker_comes_that_may(store: Store, one_who_may: Any) -> None:
    await store.register_worker(worker("w1", deployment_id="green"))
    await write_all(store, new_start("a", deployment_id="blue", code_version="1"))
    await store.sort_out(T0 + SECOND)
    assert await blocked_reason(store, "a") is not None
    await store.register_worker(worker("w3", "other", deployment_id="blue"))
    await store.register_worker(worker("w4", deployment_id="blue", versions={"wf": "2"}))
    await store.sort_out(T0 + SECOND)
    assert "blue" in (await blocked_reason(store, "a") or "")
    await store.register_worker(one_who_may)
    await store.sort_out(T0 + SECOND)
    assert await blocked_reason(store, "a") is None
    assert await claim_all(store, "w2", takes_queue=True) == ["a"]


async def look(store: Store, worker_id: str) -> Survey:
    return await store.survey(
        worker_id,
        ["wf"],
        takes_queue=True,
        now=T0 + 2 * SECOND,
        queued_before=T0 + SECOND,
        asked_before=0,
    )


async def test_a_survey_is_of_what_the_worker_may_run(store: Store) -> None:
    await store.liveness.hold("w1")
    await store.register_worker(worker("w1", takes_queue=True, deployment_id="green"))
    assert not (await look(store, "w1")).unregistered
    await write_all(store, new_start("a", deployment_id="blue", code_version="1"))
    await write_all(store, owned_start("b", "w2", deployment_id="blue"))
    await write(store, change("b", 1, status=Status.WAITING, wake_at=T0 + 5 * SECOND))
    seen = await look(store, "w1")
    assert (seen.unregistered, seen.claimable, seen.next_wake) == (True, False, None)
    await store.sort_out(T0 + SECOND)
    assert not (await look(store, "w1")).unregistered
    await store.register_worker(worker("w1", takes_queue=True, deployment_id="blue"))
    seen = await look(store, "w1")
    assert (seen.unregistered, seen.next_wake) == (True, T0 + 5 * SECOND)
    await store.sort_out(T0 + SECOND)
    seen = await look(store, "w1")
    assert (seen.unregistered, seen.claimable) == (False, True)
