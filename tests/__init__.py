"""The tests of Polos; a package, so that `python -m tests.check` and shared helpers are found."""
