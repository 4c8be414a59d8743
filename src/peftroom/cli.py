"""The whole command line: what a room needs, beside the commands of ``nbregress.cli``."""

import sys

import peftroom.grade
import peftroom.solve  # noqa: F401 - its commands
from nbregress.cli import main

if __name__ == "__main__":
    sys.exit(main())
