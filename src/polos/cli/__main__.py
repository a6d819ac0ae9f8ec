"""`python -m polos.cli` is the command `polos`."""

import sys

from polos.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
