"""The whole command line: what a room needs, beside the commands of ``nbregress.cli``."""

import sys

from nbregress.cli import main
from peftroom import grade  # noqa: F401 - its commands

if __name__ == "__main__":
    sys.exit(main())
