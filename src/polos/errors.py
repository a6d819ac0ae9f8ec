"""Every error that Polos raises, in one tree; imports nothing.

PolosError
├── UsageError                     the programmer: fix the call
│   ├── WorkflowDefinitionError    (TypeError, ValueError) the function or an argument of @workflow
│   ├── InvalidPayloadError        (ValueError) payload does not fit the workflow's annotation
│   ├── InvalidStateError          (ValueError) initial state does not fit the state schema
│   ├── StateSchemaError           (TypeError) a state schema has a field that cannot come back
│   ├── EncodeError                (TypeError) a value cannot be recorded; names the path to it
│   │   └── SecretInClearError     (ValueError) a Secret, and no codec that would encrypt it
│   ├── ImportFileError            (ValueError) a file of `polos export` is damaged, or not one
│   ├── NonDeterminismError        the code asked for other steps than the journal holds
│   ├── OutsideWorkflowError       (RuntimeError) only code outside of workflows may call this
│   ├── FormError                  (ValueError) an answer does not fit the form that asks for it
│   └── WorkflowNotRegisteredError (LookupError, ValueError) no process knows the workflow id
├── ExecutionNotFoundError         (LookupError) the store has no such execution
├── BlobNotFoundError              (LookupError) the store has no such content (any more)
├── StepNotFoundError              (LookupError) the execution has no such step
├── ConflictError                  the execution is not in a status that allows the call
│   └── AlreadyResumedError        a suspension has its answer; says since when
├── StepExecutionError             a step, wait or child failed
│   ├── StepTimeoutError           (TimeoutError) an attempt of a step took too long
│   ├── WaitTimeoutError           (TimeoutError) nothing came for a wait in time
│   └── StateTooLargeError         (ValueError) state is over its limit
├── ExecutionFailedError           (RuntimeError) the awaited execution failed
├── ExecutionCancelledError        the awaited execution was cancelled
├── WorkflowTimeoutError           (TimeoutError) the caller's wait or the execution's time is over
└── StoreError                     the operator: free, unlock or upgrade the database
    ├── EncryptionKeyError         a stored value needs a key that was not given, or is damaged
    ├── StoreBusyError             locked by another process for too long
    ├── StoreUnavailableError      the database server cannot be reached
    ├── StoreReadOnlyError         opened or mounted read-only
    ├── StoreFullError             disk or page limit is full
    ├── StoreVersionError          written by a newer release
    └── StoreClosedError           the client was closed

AttemptSealed(BaseException)       control flow: this attempt lost its claim; never catch it
"""


class PolosError(Exception):
    """Base of everything that Polos raises on purpose."""


class UsageError(PolosError):
    """The call cannot work as written; the message says what to change."""


class WorkflowDefinitionError(UsageError, TypeError, ValueError):
    """A workflow's function or an argument of `@workflow` cannot work; raised at decoration.

    A `TypeError` and a `ValueError`, since the reference raises one or the other.
    """


class InvalidPayloadError(UsageError, ValueError):
    """A payload does not fit the annotation of the workflow's second parameter."""


class InvalidStateError(UsageError, ValueError):
    """An initial state does not fit the workflow's state schema."""


class StateSchemaError(UsageError, TypeError):
    """A state schema has a field whose value could not be read back from the journal."""


class EncodeError(UsageError, TypeError):
    """A value cannot be recorded as JSON; `path` leads to the offending part."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class SecretInClearError(EncodeError, ValueError):
    """A value holds a `Secret`, and the client has no codec that would encrypt it at rest."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} holds a Secret, which is never stored in clear text; give the client "
            "codec=EncryptionCodec(...) (polos.codecs), or set POLOS_ENCRYPTION_KEY",
            what,
        )


class ImportFileError(UsageError, ValueError):
    """The file was not written by `polos export`, was changed since, or is of a newer format."""


class NonDeterminismError(UsageError):
    """On replay the code asked for something else than the journal recorded under that key.

    `step_key` is the recorded step, `reason` what became of it.
    """

    def __init__(
        self, message: str, *, step_key: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.step_key = step_key
        self.reason = reason or message


class HistoryTooLongError(PolosError):
    """The journal of the execution has reached its bound; `ctx.continue_as_new` begins another."""


class OutsideWorkflowError(UsageError, RuntimeError):
    """Called from inside a running workflow, where `ctx.step` has what is needed instead."""


class FormError(UsageError, ValueError):
    """An answer does not fit the form of the suspension, which still waits; nothing was stored.

    `fields` says for each field that does not fit what is expected of it.
    """

    def __init__(self, message: str, fields: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.fields = fields or {}


class WorkflowNotRegisteredError(UsageError, LookupError, ValueError):
    """Neither this process nor any live worker has registered the workflow id.

    A `ValueError` too, which the reference raises for an unknown id in a batch.
    """


class ExecutionNotFoundError(PolosError, LookupError):
    """The store holds no execution with this id."""

    def __init__(self, execution_id: str) -> None:
        super().__init__(
            f"execution {execution_id!r} does not exist in this store; check the id and the "
            "database URL (polos list shows what is there)"
        )
        self.execution_id = execution_id


class BlobNotFoundError(PolosError, LookupError):
    """The store does not hold this content: it was never stored, or removed as unused."""

    def __init__(self, hash: str) -> None:
        super().__init__(
            f"blob {hash[:16]}… does not exist in this store; what no execution refers to is "
            "removed after a day: store it again"
        )
        self.hash = hash


class StepNotFoundError(PolosError, LookupError):
    """The journal of the execution has no step with this key."""

    def __init__(self, execution_id: str, step_key: str) -> None:
        super().__init__(
            f"execution {execution_id!r} has no step {step_key!r}; polos steps {execution_id} "
            "lists them (a repeated key is numbered: key#2)"
        )
        self.execution_id = execution_id
        self.step_key = step_key


class ConflictError(PolosError):
    """The execution is not in a status that allows this; read it again."""


class AlreadyResumedError(ConflictError):
    """Somebody has answered this suspension before; `accepted_at` (ISO 8601, UTC) says when."""

    def __init__(self, message: str, accepted_at: str | None = None) -> None:
        super().__init__(message)
        self.accepted_at = accepted_at


class StepExecutionError(PolosError):
    """A step, a wait or a child workflow failed.

    `reason` is the message, `step_key` the (numbered) key of the failed step, `error_type` the
    class name of the error that caused it. The same on the first run and on every replay.
    """

    def __init__(
        self,
        reason: str | None = None,
        *,
        step_key: str | None = None,
        error_type: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step_key = step_key
        self.error_type = error_type

    def __str__(self) -> str:
        return self.reason or ""


class StepTimeoutError(StepExecutionError, TimeoutError):
    """An attempt of a step did not end within its `timeout`."""


class WaitTimeoutError(StepExecutionError, TimeoutError):
    """No answer, or no event, came within the `timeout` of a wait."""


class StateTooLargeError(StepExecutionError, ValueError):
    """Workflow state is over its limit; the last recorded state stays.

    `field` is the largest top-level field, `size` and `limit` are bytes of JSON.
    """

    def __init__(
        self,
        reason: str | None = None,
        *,
        step_key: str | None = None,
        error_type: str | None = None,
        field: str | None = None,
        size: int = 0,
        limit: int = 0,
    ) -> None:
        super().__init__(reason, step_key=step_key, error_type=error_type)
        self.field = field
        self.size = size
        self.limit = limit


class ExecutionFailedError(PolosError, RuntimeError):
    """The awaited execution failed; the message is `Workflow execution failed: {error}`."""

    def __init__(self, error: str, execution_id: str | None = None) -> None:
        super().__init__(f"Workflow execution failed: {error}")
        self.error = error
        self.execution_id = execution_id


class ExecutionCancelledError(PolosError):
    """The awaited execution was cancelled."""

    def __init__(
        self, message: str = "Execution cancelled", execution_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.execution_id = execution_id


class WorkflowTimeoutError(PolosError, TimeoutError):
    """The caller's `timeout=` or the execution's `run_timeout_seconds` is over.

    After a caller's timeout the execution goes on; only `run_timeout_seconds` ends it.
    """

    def __init__(
        self, execution_id: str | None = None, timeout_seconds: float | None = None
    ) -> None:
        text = f"Execution timed out after {timeout_seconds} seconds"
        if execution_id:
            text += f" (execution_id: {execution_id})"
        super().__init__(text)
        self.execution_id = execution_id
        self.timeout_seconds = timeout_seconds


class StoreError(PolosError):
    """The database cannot do what was asked; the message says what to do about it."""


class EncryptionKeyError(StoreError):
    """A stored value was encrypted with a key that this process does not have, or was changed.

    `key_id` names the key, if the value says so. Give the key to `codec=` or POLOS_ENCRYPTION_KEYS.
    """

    def __init__(self, message: str, key_id: str | None = None) -> None:
        super().__init__(message)
        self.key_id = key_id


class StoreBusyError(StoreError):
    """Another process holds the database locked for longer than the busy timeout."""


class StoreUnavailableError(StoreError):
    """The database server could not be reached, or went away for longer than the URL allows."""


class StoreReadOnlyError(StoreError):
    """The database was opened, or is stored, read-only."""


class StoreFullError(StoreError):
    """The disk, or the page limit of the database, is full."""


class StoreVersionError(StoreError):
    """The database was written by a newer release of Polos."""


class StoreClosedError(StoreError):
    """The client was closed, or its process was forked after opening."""


class AttemptSealed(BaseException):
    """This attempt may write nothing more: its claim was lost, evicted or handed back.

    A `BaseException`, so that `except Exception` in workflow code does not swallow it. Let it
    pass: the execution goes on elsewhere, from its last commit.
    """
