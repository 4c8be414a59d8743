"""The commands that make pages of recorded notebooks: book, slides, export."""

import argparse
import time
from pathlib import Path

from nbregress.cli import NOTEBOOK, command, option
from peftroom import links

OUT = "folder of the pages; default: %(default)s"


def made(paths: list[Path], started: float) -> None:
    """Check finished pages, and say what there is.

    Raises:
        UserError: a link leads nowhere, or a page would ask the network for a part of itself.
    """
    links.check(paths)
    seconds = time.monotonic() - started
    print(f"{len(paths)} pages in {seconds:.0f} s, every link checked: {paths[0]}")


@command(NOTEBOOK, option("--out", type=Path, default=Path("runs/book"), help=OUT))
def book(options: argparse.Namespace) -> None:
    """Build the offline book of the recorded notebooks; nothing is executed."""
    from nbregress import notebooks
    from peftroom import book

    started = time.monotonic()
    made(book.build(notebooks.find(options.notebook), options.out), started)


@command(NOTEBOOK, option("--out", type=Path, default=Path("runs/slides"), help=OUT))
def slides(options: argparse.Namespace) -> None:
    """Make a deck of slides of each recorded notebook, for a browser without a network."""
    from nbregress import notebooks
    from peftroom import slides

    started = time.monotonic()
    made(slides.build(notebooks.find(options.notebook), options.out), started)


@command(NOTEBOOK, option("--out", type=Path, default=Path("runs/export"), help=OUT))
def export(options: argparse.Namespace) -> None:
    """Make one page of each recorded notebook that needs no other file and no network."""
    from nbregress import notebooks
    from peftroom import export

    started = time.monotonic()
    made(export.build(notebooks.find(options.notebook), options.out), started)
