"""``pefthelpers solve``: a teacher's copy of a notebook with the solutions in place, a learner's without any."""

import argparse
from pathlib import Path

import nbformat

from nbregress import answers, notebooks
from nbregress.cli import command, option
from pefthelpers.errors import UserError
from pefthelpers.paths import atomic_path


@command(
    option("notebook", help="02, its companion 02b, 02_lora, a path"),
    option("--out", type=Path, required=True, metavar="FILE", help="the notebook to write"),
    option("--strip", action="store_true", help="leave the stubs, take the solutions out"),
)
def solve(options: argparse.Namespace) -> None:
    """Write a notebook with its solutions filled in, or, for learners, without them."""
    (path,) = notebooks.find([options.notebook])
    if options.out.exists() and options.out.samefile(path):
        raise UserError(f"--out is {path.name} itself: choose another file.")
    book = notebooks.read(path)
    try:
        count = answers.strip(book) if options.strip else answers.solve(book)
    except ValueError as error:
        raise UserError(f"{path.name}: {error}.") from error
    book.metadata.pop("pefthelpers", None)  # its hash, of the outputs as they were recorded
    for cell in notebooks.code_cells(book):
        cell.outputs, cell.execution_count = [], None
    with atomic_path(options.out) as temporary:
        nbformat.write(book, temporary)
    print(f"{options.out}: {count} solutions {'taken out' if options.strip else 'filled in'}")
