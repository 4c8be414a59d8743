"""The whole command line: what a room needs, beside the commands of ``nbregress.cli``."""

import sys

# Importing them registers their commands.
from nbregress.cli import main
from peftroom import bundle, grade, machines, pages, server, solve  # noqa: F401

if __name__ == "__main__":
    sys.exit(main())
