"""The exceptions to the rules of test_tidy.py: place -> reason.

A place is `file` or `file:function` (with its class, as in `Pool.run`), below src/. An entry
without a reason, or one that nothing needs any more, fails the tests.
"""

LONG_MODULES: dict[str, str] = {}

LONG_FUNCTIONS: dict[str, str] = {}

IMPORTS_INSIDE_FUNCTIONS: dict[str, str] = {
    "polos/app.py:_make_postgres_store": "the extra `postgres`, needed by its URLs only",
    "polos/codecs/encryption.py:EncryptionCodec.__init__": "the extra `crypto`, for keys",
}

# Nets that catch whatever comes and go on. One that ends in a bare `raise` needs no entry.
BROAD_EXCEPTS: dict[str, str] = {
    "polos/core/failure.py:spelled": "the message of a user's error comes from its own __str__",
    "polos/worker/bodies.py:run": "the body of a step: any error is a failed attempt",
    "polos/worker/calling.py:allows": "the user's predicate: its error is part of the failure",
    "polos/worker/code.py:_outcome": "the workflow function: any error ends the execution",
    "polos/worker/reconciling.py:Reconciler.verdict": "the user's function: it cannot tell then",
    "polos/store/postgres/transactions.py:run": "the user's function: its error is the step's",
    "polos/store/sqlite/transactions.py:on_loop.run_it": "goes to the thread that waits",
    "polos/store/sqlite/transactions.py:run": "the user's function: its error is the step's",
    "polos/workflow/evolving.py:upgraded": "a migration: its error is part of ours",
    "polos/workflow/keying.py:Keying.key_of": "the user's function: its error is part of ours",
    "polos/worker/event_calls.py:_Reception.take": "the user's filter: its error fails the step",
    "polos/worker/threads.py:Threads._work": "a plain function: its error goes to who awaits it",
}

# Who may ask the machine for the time, for chance or for a setting; the others are given it.
AMBIENT: dict[str, str] = {
    "polos/core/clock.py:SystemClock.now": "the clock of the machine",
    "polos/core/clock.py:SystemClock.monotonic": "the clock of the machine",
    "polos/client/settings.py:store_url": "the settings of the client",
    "polos/client/settings.py:approval_url": "the settings of the client",
    "polos/client/settings.py:direct_url": "the settings of the client",
    "polos/store/postgres/links.py:Pauses.rest": "processes must not come back in step",
    "polos/client/settings.py:deployment_id": "the settings of the client",
    "polos/client/settings.py:max_concurrent_workflows": "the settings of the client",
    "polos/client/settings.py:max_history": "the settings of the client",
    "polos/client/settings.py:retention": "the settings of the client",
    "polos/client/settings.py:codec": "the settings of the client",
    "polos/client/settings.py:spill_bytes": "the settings of the client",
    "polos/codecs/encryption.py:EncryptionCodec.__init__": "a salt for each process",
    "polos/codecs/encryption.py:EncryptionCodec.encode": "a nonce for each value",
    "polos/codecs/encryption.py:generate_key": "a key is chance",
    "polos/client/settings.py:event_retention": "the settings of the client",
}
