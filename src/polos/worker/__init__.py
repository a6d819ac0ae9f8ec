"""The only place where user code runs: attempts, replay, bodies, threads, drain."""
