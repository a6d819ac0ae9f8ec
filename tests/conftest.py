"""What every test starts from: no settings of the developer's shell, no time limits."""

import os
import sys

from hypothesis import settings

for name in [name for name in os.environ if name.startswith("POLOS_")]:
    if not name.startswith("POLOS_TEST_"):
        del os.environ[name]

# Hundreds of tests start a process: without this each of them compiles the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A slow machine is not a failing test: speed is measured by bench/, never here.
settings.register_profile("polos", deadline=None, print_blob=True)
settings.load_profile("polos")
