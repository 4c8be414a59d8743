"""The whole command line: what a room needs, beside the commands of ``nbregress.cli``."""

import sys

import peftroom.grade
import peftroom.solve  # noqa: F401 - its commands
from nbregress.cli import main
from peftroom import pages  # noqa: F401  book, slides, export

if __name__ == "__main__":
    sys.exit(main())
