"""`@workflow`, the object that it makes, and starting it."""

# Every spelling of an annotation is a case of its own.
# ruff: noqa: UP007, UP045

import functools
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from typing import Any, Literal, NewType, Optional, TypedDict, Union, assert_type

import msgspec
import pytest
from pydantic import BaseModel

from polos.errors import (
    InvalidPayloadError,
    InvalidStateError,
    OutsideWorkflowError,
    PolosError,
    StateSchemaError,
    WorkflowDefinitionError,
)
from polos.workflow import registry
from polos.workflow.ambient import current_context
from polos.workflow.batch import BatchStepResult, BatchWorkflowInput, batch_invoke
from polos.workflow.definition import StartOptions, Workflow, workflow
from polos.workflow.queue import Queue, queue
from polos.workflow.schedule import Schedule
from polos.workflow.state import StateSchema


class WorkflowContext:
    pass


class AgentContext:
    pass


class MyContext(WorkflowContext):
    pass


class Files(BaseModel):
    names: list[str]


class Report(BaseModel):
    done: int = 0


class Progress(BaseModel):
    done: int = 0


@dataclass
class Point:
    x: int
    y: int = 0


class Row(TypedDict):
    a: int


class Pair(msgspec.Struct):
    a: int


class Color(Enum):
    RED = "red"


UserId = NewType("UserId", str)


class Opaque:
    """Nobody can read one from JSON."""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "default", registry.Registry())


@dataclass
class Handle:
    outcome: Any
    waits: list[float | None] = field(default_factory=list)

    async def result(self, timeout: float | None = None) -> Any:
        self.waits.append(timeout)
        return self.outcome


class Client:
    def __init__(self, outcome: Any = "done") -> None:
        self.handle = Handle(outcome)
        self.starts: list[tuple[Any, Any, StartOptions]] = []
        self.batches: list[Any] = []

    async def start_workflow(
        self, workflow: Workflow[Any], payload: Any, options: StartOptions
    ) -> Handle:
        self.starts.append((workflow, payload, options))
        return self.handle

    async def batch_invoke(
        self,
        workflows: list[BatchWorkflowInput],
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> list[Handle]:
        self.batches.append((workflows, session_id, user_id))
        return [self.handle]

    def run_blocking(self, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        coroutine = main()
        with pytest.raises(StopIteration) as stop:
            coroutine.send(None)
        return stop.value.value


@workflow
async def plain(ctx: WorkflowContext, input: Files) -> Report:
    """Import files."""
    return Report()


# -- forms of the decorator --------------------------------------------------------------------


def test_bare_called_and_with_an_id() -> None:
    @workflow
    async def bare(ctx):
        pass

    @workflow()
    async def called(ctx):
        pass

    @workflow(id="custom/id 1")
    async def named(ctx):
        pass

    @workflow("positional")
    async def other(ctx):
        pass

    assert registry.default.ids() == ["bare", "called", "custom/id 1", "positional"]
    assert registry.get_workflow("bare") is bare
    assert registry.get_workflow("nope") is None
    assert registry.get_all_workflows() == {
        "bare": bare,
        "called": called,
        "custom/id 1": named,
        "positional": other,
    }


def test_attributes_of_a_plain_workflow() -> None:
    assert (plain.id, plain.workflow_type, plain.description) == ("plain", "workflow", None)
    assert (plain.queue_name, plain.queue_concurrency_limit) == (None, None)
    assert (plain.trigger_on_event, plain.batch_size, plain.batch_timeout_seconds) == (
        None,
        1,
        None,
    )
    assert (plain.schedule, plain.parsed_schedule, plain.is_schedulable) == (None, None, False)
    assert (plain.on_start, plain.on_end) == ([], [])
    assert (plain.payload_schema_class, plain.payload_hint) == (Files, Files)
    assert (plain.output_schema, plain.result_hint) == (None, Report)
    assert (plain.state_schema, plain.schema) == (None, None)
    assert (plain.is_async, plain.has_payload_param) == (True, True)
    assert (plain.max_retries, plain.run_timeout_seconds) == (0, None)
    assert (plain.__name__, plain.__doc__) == ("plain", "Import files.")
    assert plain.__module__ == __name__


def test_attributes_of_a_full_workflow() -> None:
    def hook(ctx: Any, hook_ctx: Any) -> None:
        pass

    @workflow(
        id="full",
        description="what it is for",
        queue=queue("mail", concurrency_limit=5),
        trigger_on_event="topic",
        batch_size=10,
        batch_timeout_seconds=30,
        on_start=hook,
        on_end=[hook, hook],
        state_schema=Progress,
        max_retries=2,
        run_timeout_seconds=60,
    )
    def full(ctx):
        return 1

    assert (full.queue_name, full.queue_concurrency_limit) == ("mail", 5)
    assert (full.trigger_on_event, full.batch_size, full.batch_timeout_seconds) == ("topic", 10, 30)
    assert (full.on_start, full.on_end) == ([hook], [hook, hook])
    assert full.state_schema is Progress
    assert isinstance(full.schema, StateSchema)
    assert (full.is_async, full.has_payload_param, full.payload_hint) == (False, False, None)
    assert full.result_hint is None
    assert (full.max_retries, full.run_timeout_seconds) == (2, 60)
    assert full.description == "what it is for"


def test_the_repr_says_what_it_is() -> None:
    @workflow(id="w", state_schema=Progress)
    async def shown(ctx, input: Files | dict[str, Any] | None):
        pass

    assert repr(plain) == f"<workflow 'plain' = {__name__}.plain, payload=Files>"
    assert repr(shown).endswith("shown, payload=Files | dict[str, Any] | None, state=Progress>")


def test_the_constructor_takes_what_the_decorator_refuses_and_registers_nothing() -> None:
    def func(ctx: Any, payload) -> None:  # type: ignore[no-untyped-def]
        pass

    made = Workflow(id="made", func=func)
    assert made.payload_hint is Any
    assert made.payload_schema_class is None
    assert Workflow("made", func, payload_schema_class=Files).payload_hint is Files
    assert Workflow("made", func, output_schema=Report).result_hint is Report
    assert registry.get_workflow("made") is None


class Callable_:
    async def __call__(self, ctx: WorkflowContext, payload: "Files") -> None:
        pass

    async def method(self, ctx: WorkflowContext, payload: "Files") -> None:
        pass


def wrapped(func: Any) -> Any:
    @functools.wraps(func)
    async def wrapper(*args: Any) -> Any:
        return await func(*args)

    return wrapper


@pytest.mark.parametrize(
    "func",
    [
        Callable_(),
        Callable_().method,
        functools.partial(Callable_().method),
        wrapped(Callable_().method),
    ],
)
def test_anything_that_can_be_called_can_be_a_workflow(func: Any) -> None:
    made = workflow(id="made")(func)
    assert made.is_async
    assert made.payload_hint is Files


# -- signatures --------------------------------------------------------------------------------


def no_parameter(): ...
def three_parameters(ctx, payload: dict, more: int = 0): ...
def variadic(*args): ...
def keywords(ctx, **payload: dict): ...
def keyword_only(ctx, *, payload: dict): ...
def wrong_context(ctx: int): ...
def untyped_payload(ctx, payload): ...
def opaque_payload(ctx, payload: Opaque): ...
def list_of_opaque(ctx, payload: list[Opaque]): ...
def opaque_union(ctx, payload: Opaque | None): ...
def callable_payload(ctx, payload: Client): ...
def generator(ctx):
    yield


async def async_generator(ctx):
    yield


@pytest.mark.parametrize(
    ("func", "fault"),
    [
        (no_parameter, "at least 1 parameter"),
        (three_parameters, "at most 2 parameters"),
        (variadic, r"'\*args' must be an ordinary parameter"),
        (keywords, r"payload: dict' must be an ordinary parameter"),
        (keyword_only, "'payload: dict' must be an ordinary parameter"),
        (wrong_context, "first parameter 'ctx' must be typed as WorkflowContext .* got int"),
        (untyped_payload, "second parameter 'payload' must be typed"),
        (opaque_payload, "nobody knows how to read Opaque from JSON"),
        (list_of_opaque, r"nobody knows how to read list\[Opaque\]"),
        (opaque_union, r"nobody knows how to read Opaque \| None"),
        (callable_payload, "nobody knows how to read Client"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
    ],
)
def test_a_signature_that_cannot_work_is_refused_with_a_remedy(func: Any, fault: str) -> None:
    with pytest.raises(TypeError, match=fault) as caught:
        workflow(func)
    assert isinstance(caught.value, PolosError)
    assert func.__name__ in str(caught.value)
    assert "write (ctx: WorkflowContext)" in str(caught.value)
    assert registry.default.ids() == []


@pytest.mark.parametrize(
    "annotation",
    [
        inspect.Parameter.empty,
        WorkflowContext,
        AgentContext,
        MyContext,
        Optional[WorkflowContext],
        WorkflowContext | None,
        "WorkflowContext",
        "polos.WorkflowContext | None",
        "AgentContext[State]",
        "Alias",
    ],
)
def test_the_first_parameter_may_be(annotation: Any) -> None:
    Alias = WorkflowContext  # noqa: F841

    async def func(ctx):
        pass

    if annotation is not inspect.Parameter.empty:
        func.__annotations__["ctx"] = annotation
    assert workflow(func).id == "func"


@pytest.mark.parametrize(
    "hint",
    [
        dict,
        dict[str, int],
        dict[str, Any],
        Files,
        BaseModel,
        Union[Files, dict[str, Any]],
        Files | dict,
        Optional[Files],
        Point,
        Row,
        Pair,
        list,
        list[Files],
        list[Pair],
        tuple[int, ...],
        str,
        int,
        float,
        bool,
        bytes,
        Any,
        object,
        None,
        Color,
        Literal["a", 1],
        datetime,
        date,
        UserId,
        dict[str, list[Point | Row | None]],
    ],
    ids=str,
)
def test_the_second_parameter_may_be(hint: Any) -> None:
    async def func(ctx, payload):
        pass

    func.__annotations__["payload"] = hint
    made = workflow(func)
    assert made.has_payload_param
    assert made.payload_hint == (type(None) if hint is None else hint)
    assert workflow(func).payload_adapter is None or made.payload_adapter is made.payload_adapter


def test_what_is_not_a_function_is_refused() -> None:
    with pytest.raises(TypeError, match="a workflow already"):
        workflow(workflow(id="a")(no_payload))
    with pytest.raises(TypeError, match="makes a function a workflow"):
        workflow(id="a")(Files)
    with pytest.raises(TypeError, match="has no name"):
        workflow(functools.partial(no_payload))
    with pytest.raises(TypeError, match="makes a function"):
        workflow()("name")  # type: ignore[call-overload]


async def no_payload(ctx):
    pass


@pytest.mark.parametrize("id", ["", "a\nb", "\x00", 5, b"x"])
def test_an_id_is_printable_text(id: Any) -> None:
    with pytest.raises(WorkflowDefinitionError, match="a workflow's id"):
        workflow(id=id)(no_payload)


# -- queue, trigger, schedule, hooks, numbers, state -------------------------------------------


@pytest.mark.parametrize(
    ("given", "name", "limit"),
    [
        (None, None, None),
        ("mail", "mail", None),
        (Queue("mail"), "mail", None),
        (queue("mail", 3), "mail", 3),
        ({"name": "mail", "concurrency_limit": 3}, "mail", 3),
        ({"concurrency_limit": 1}, "no_payload", 1),
        ({}, "no_payload", None),
    ],
)
def test_forms_of_a_queue(given: Any, name: str | None, limit: int | None) -> None:
    made = workflow(queue=given)(no_payload)
    assert (made.queue_name, made.queue_concurrency_limit) == (name, limit)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (5, "Invalid queue type: int"),
        (["mail"], "Invalid queue type: list"),
        ("", "non-empty str"),
        ({"name": None}, "non-empty str"),
        ({"limit": 3}, "not 'limit'"),
        ({"concurrency_limit": 0}, "at least 1"),
        ({"concurrency_limit": True}, "at least 1"),
        ({"concurrency_limit": "3"}, "at least 1"),
    ],
)
def test_a_queue_of_another_form_is_refused(given: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        workflow(queue=given)(no_payload)


@pytest.mark.parametrize(
    ("given", "parsed", "is_schedulable"),
    [
        (None, None, False),
        (False, None, False),
        (True, None, True),
        ("0 3 * * *", Schedule("0 3 * * *"), True),
        ({"cron": "*/5 * * * *"}, Schedule("*/5 * * * *", "UTC", "global"), True),
        (
            {"cron": "0 8 * * MON-FRI", "timezone": "America/New_York", "key": "k"},
            Schedule("0 8 * * MON-FRI", "America/New_York", "k"),
            True,
        ),
    ],
)
def test_forms_of_a_schedule(given: Any, parsed: Schedule | None, is_schedulable: bool) -> None:
    made = workflow(schedule=given)(no_payload)
    assert (made.schedule, made.parsed_schedule) == (given, parsed)
    assert made.is_schedulable is is_schedulable


@pytest.mark.parametrize(
    "cron", ["1,2,30-40/5 0-23 1 1-12 0-7", "0 0 L JAN,feb sun", "0 0 LW * 5L", "0 0 ? * 1#2"]
)
def test_cron_expressions(cron: str) -> None:
    if "?" in cron:
        with pytest.raises(ValueError, match="is not a day of month"):
            Schedule(cron)
    else:
        assert Schedule(cron).cron == cron


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (5, "Invalid schedule type: int"),
        ("", "has 0 fields"),
        ("@daily", "has 1 fields"),
        ("0 0 3 * * *", "has 6 fields"),
        ("60 * * * *", "'60' is not a minute"),
        ("* 24 * * *", "'24' is not a hour"),
        ("* * 0 * *", "'0' is not a day of month"),
        ("* * * 13 *", "'13' is not a month"),
        ("* * * * 8", "'8' is not a day of week"),
        ("*/0 * * * *", "is not a minute"),
        ("a * * * *", "is not a minute"),
        ("mon * * * *", "is not a minute"),
        ("1,,2 * * * *", "is not a minute"),
        ({}, 'needs "cron"'),
        ({"cron": 5}, "cron expression is a str"),
        ({"cron": "* * * * *", "tz": "UTC"}, "not 'tz'"),
        ({"cron": "* * * * *", "timezone": "Mars/Base"}, "'Mars/Base' is not known"),
        ({"cron": "* * * * *", "timezone": "../etc/passwd"}, "is not known"),
        ({"cron": "* * * * *", "timezone": None}, "is not known"),
        ({"cron": "* * * * *", "key": ""}, "key of a schedule"),
    ],
)
def test_a_schedule_of_another_form_is_refused(given: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        workflow(schedule=given)(no_payload)


@pytest.mark.parametrize("schedule", [True, "0 3 * * *"])
def test_a_scheduled_workflow_has_no_trigger_and_no_queue(schedule: Any) -> None:
    with pytest.raises(ValueError, match="cannot be both scheduled and event-triggered"):
        workflow(schedule=schedule, trigger_on_event="topic")(no_payload)
    with pytest.raises(ValueError, match="Scheduled workflows cannot specify a queue"):
        workflow(schedule=schedule, queue="mail")(no_payload)
    with pytest.raises(ValueError, match="Scheduled workflows cannot specify a queue"):
        Workflow("id", no_payload, schedule=schedule, queue_concurrency_limit=3)


def test_schedule_false_goes_with_a_queue_and_a_trigger() -> None:
    made = workflow(schedule=False, queue="mail", trigger_on_event="topic")(no_payload)
    assert made.trigger_on_event == "topic"


@pytest.mark.parametrize("where", ["on_start", "on_end"])
@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("name", "Invalid hooks type: str"),
        ([print, "name"], "Invalid hook type: str"),
        (plain, "Invalid hooks type: Workflow"),
        ([plain], "Invalid hook type: Workflow"),
    ],
)
def test_a_hook_is_a_function(where: str, given: Any, fault: str) -> None:
    with pytest.raises(TypeError, match=fault):
        workflow(**{where: given})(no_payload)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"batch_size": 0}, "batch_size is an int of at least 1"),
        ({"batch_size": 1.5}, "batch_size is an int"),
        ({"batch_size": True}, "batch_size is an int"),
        ({"batch_timeout_seconds": 0}, "batch_timeout_seconds is a number of seconds above 0"),
        ({"batch_timeout_seconds": "1"}, "batch_timeout_seconds is a number"),
        ({"max_retries": -1}, "max_retries is an int of at least 0"),
        ({"run_timeout_seconds": 0}, "run_timeout_seconds is a number of seconds above 0"),
        ({"run_timeout_seconds": float("nan")}, "run_timeout_seconds is a number"),
        ({"trigger_on_event": ""}, "trigger_on_event is a topic"),
        ({"trigger_on_event": 5}, "trigger_on_event is a topic"),
    ],
)
def test_numbers_and_topics_are_checked(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        workflow(**options)(no_payload)


@pytest.mark.parametrize("schema", [dict, Point, Progress(), "Progress"])
def test_a_state_schema_is_a_model_class(schema: Any) -> None:
    with pytest.raises(StateSchemaError, match="state_schema is a class"):
        workflow(state_schema=schema)(no_payload)


# -- the registry ------------------------------------------------------------------------------


def test_the_last_definition_wins_and_another_function_warns_once() -> None:
    def define(name: str) -> Workflow[Any]:
        async def one(ctx):
            pass

        async def two(ctx):
            pass

        return workflow(id="same")({"one": one, "two": two}[name])

    define("one")
    define("one")  # the same place: no warning
    with pytest.warns(
        RuntimeWarning, match=r"'same' is defined twice: .*two .* replaces .*one"
    ) as w:
        last = define("two")
    assert w[0].filename == __file__
    define("one")
    last = define("two")
    assert registry.get_workflow("same") is last
    assert len(registry.get_all_workflows()) == 1


def test_the_copy_of_all_workflows_is_the_callers() -> None:
    workflow(no_payload)
    registry.get_all_workflows().clear()
    assert registry.default.ids() == ["no_payload"]


# -- starting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["run", "__call__"])
async def test_run_and_call_start_wait_and_return_the_result(method: str) -> None:
    client = Client(outcome=Report(done=3))
    result = await getattr(plain, method)(client, {"names": ["a"]}, timeout=5)
    assert result == Report(done=3)
    assert client.handle.waits == [5]
    [(started, payload, options)] = client.starts
    assert started is plain
    assert payload == Files(names=["a"])
    assert options == StartOptions(queue_name="plain")


async def test_the_type_checker_knows_result_and_handle() -> None:
    @workflow(id="sync")
    def sync(ctx: WorkflowContext) -> int:
        return 1

    client = Client(outcome=1)
    assert_type(await plain(client, Files(names=[])), Report)
    assert_type(await sync.run(client), int)
    assert_type(sync.run_sync(client), int)
    assert_type(await plain.invoke(client, Files(names=[])), Handle)
    assert_type(await batch_invoke(client, []), list[Handle])


async def test_invoke_returns_the_clients_handle_with_every_option() -> None:
    made = workflow(id="made", state_schema=Progress, queue=queue("own", 4))(no_payload)
    client = Client()
    handle = await made.invoke(
        client, "dropped", "mail", "key", "session", "user", {"done": 1}, 30, idempotency_key="once"
    )
    assert handle is client.handle
    assert handle.waits == []
    [(_, payload, options)] = client.starts
    assert payload is None
    assert options == StartOptions(
        queue_name="mail",
        queue_concurrency_limit=4,
        concurrency_key="key",
        session_id="session",
        user_id="user",
        initial_state={"done": 1},
        run_timeout_seconds=30,
        idempotency_key="once",
    )


async def test_what_a_start_does_not_say_is_the_workflows_own() -> None:
    made = workflow(id="made", queue=queue("own", 4), run_timeout_seconds=9)(no_payload)
    client = Client()
    await made.invoke(client)
    await made.invoke(client, queue=Queue("mail", 2), run_timeout_seconds=3)
    assert [options for _, _, options in client.starts] == [
        StartOptions("own", 4, run_timeout_seconds=9),
        StartOptions("mail", 2, run_timeout_seconds=3),
    ]


def test_run_sync_runs_on_the_clients_loop() -> None:
    client = Client()
    assert plain.run_sync(client, Files(names=[]), "mail", timeout=1, idempotency_key="k") == "done"
    [(_, _, options)] = client.starts
    assert options == StartOptions("mail", idempotency_key="k")
    assert client.handle.waits == [1]


def test_all_ways_of_starting_take_the_same_options() -> None:
    run, call, sync, invoke = (
        set(inspect.signature(method).parameters)
        for method in (plain.run, plain.__call__, plain.run_sync, plain.invoke)
    )
    assert run == call == sync == invoke | {"timeout"}


async def test_nothing_is_started_when_the_call_is_wrong() -> None:
    client = Client()
    with pytest.raises(ValueError, match=r"'plain' requires a payload parameter.*pass Files"):
        await plain.run(client)
    with pytest.raises(InvalidPayloadError, match="names: Field required"):
        await plain.run(client, {})
    with pytest.raises(InvalidStateError, match="'plain' has no state"):
        await plain.run(client, Files(names=[]), initial_state=Progress())
    with pytest.raises(ValueError, match="Invalid queue type"):
        await plain.run(client, Files(names=[]), queue=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="run_timeout_seconds"):
        await plain.run(client, Files(names=[]), run_timeout_seconds=-1)
    assert client.starts == []


async def test_an_empty_initial_state_counts_as_none() -> None:
    client = Client()
    await plain.invoke(client, Files(names=[]), initial_state={})
    assert client.starts[0][2].initial_state == {}


async def test_a_running_workflow_is_told_to_use_its_steps() -> None:
    client = Client()
    token = current_context.set(object())
    try:
        for call, instead in [
            (lambda: plain.run(client, Files(names=[])), "ctx.step.invoke_and_wait"),
            (lambda: plain(client, Files(names=[])), "ctx.step.invoke_and_wait"),
            (lambda: plain.invoke(client, Files(names=[])), r"ctx.step.invoke\("),
            (lambda: batch_invoke(client, []), "ctx.step.batch_invoke"),
        ]:
            with pytest.raises(RuntimeError, match=instead) as caught:
                await call()
            assert isinstance(caught.value, OutsideWorkflowError)
        with pytest.raises(OutsideWorkflowError, match=r"ctx\.step\.invoke_and_wait"):
            plain.run_sync(client, Files(names=[]))
    finally:
        current_context.reset(token)
    assert client.starts == []


# -- batches -----------------------------------------------------------------------------------


async def test_a_batch_goes_to_the_client() -> None:
    client = Client()
    batch = [BatchWorkflowInput(id="plain", payload={"names": []})]
    assert await batch_invoke(client, batch, session_id="s", user_id="u") == [client.handle]
    assert client.batches == [(batch, "s", "u")]


def test_models_of_a_batch() -> None:
    given = BatchWorkflowInput(id="w", initial_state={"done": 1})
    assert given.initial_state == {"done": 1}
    assert given.payload is None
    state = Progress(done=1)
    assert BatchWorkflowInput(id="w", initial_state=state).initial_state is state
    result = BatchStepResult.model_validate({"workflow_id": "w", "success": True, "extra": 1})
    assert (result.result, result.error) == (None, None)
