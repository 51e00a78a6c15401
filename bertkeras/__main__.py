"""`python -m bertkeras` is the command `bertkeras`."""

import sys

from bertkeras.cli import main

if __name__ == "__main__":
    sys.exit(main())
