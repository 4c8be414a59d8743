"""The whole command line: what a room needs, beside the commands of ``nbregress.cli``."""

import sys

import peftroom.bundle
import peftroom.grade
import peftroom.machines
import peftroom.server
import peftroom.solve  # noqa: F401 - they register their commands
from nbregress.cli import main

if __name__ == "__main__":
    sys.exit(main())
