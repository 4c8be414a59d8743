"""The commands that make pages of recorded notebooks: book, slides, export."""

import argparse
import importlib
import time
from pathlib import Path

from nbregress.cli import NOTEBOOK, command, option

OUT = option("--out", type=Path, help="folder of the pages; default: runs/ and the command's name")


def make(options: argparse.Namespace) -> None:
    """Make the pages of notebooks, look up every link, and say what there is."""
    from nbregress import notebooks
    from peftroom import links

    started, out = time.monotonic(), options.out or Path("runs") / options.command
    builder = importlib.import_module(f"peftroom.{options.command}")
    pages = builder.build(notebooks.find(options.notebook), out)
    links.check(pages)
    seconds = time.monotonic() - started
    print(f"{len(pages)} pages in {seconds:.0f} s, every link looked up: {pages[0]}")


@command(NOTEBOOK, OUT)
def book(options: argparse.Namespace) -> None:
    """Build the offline book of the recorded notebooks; nothing is executed."""
    make(options)


@command(NOTEBOOK, OUT)
def slides(options: argparse.Namespace) -> None:
    """Make a deck of slides of each recorded notebook, for a browser without a network."""
    make(options)


@command(NOTEBOOK, OUT)
def export(options: argparse.Namespace) -> None:
    """Make one page of each recorded notebook that needs no other file and no network."""
    make(options)
