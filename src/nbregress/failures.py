"""Why did an executed notebook fail: which cell, and in which words?"""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from nbregress import notebooks

ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}
LONGEST = 240  # characters: some libraries print tensors' shapes by the page
# Python names the notebook's own line only if the call stands in the notebook.
OWN_WARNING = re.compile(r".*ipykernel_.*: \w*(Future|Deprecation)Warning: ")
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass
class Failure:
    """What went wrong: fields of a ``Result``."""

    reason: str  # cell and error (its last line) in one line
    cell: int | None = None  # number in the notebook file, from 0; None if no cell is to blame
    cell_id: str = ""
    source: str = ""  # of the cell
    traceback: str = ""  # what the cell showed, without colours


def last_line(text: str) -> str:
    """Return the last line of an error's text, which says what went wrong; its start if it is long."""
    line = (COLOURS.sub("", text).strip().splitlines() or [""])[-1].strip()
    return line if len(line) <= LONGEST else line[:LONGEST] + " …"


def own_cells(notebook) -> Iterator[tuple[int, object]]:
    """Yield ``(number, cell)`` as in the file: papermill adds cells of its own."""
    number = -1
    for cell in notebook.cells:
        added = bool(ADDED_BY_PAPERMILL & set(notebooks.tags(cell)))
        number += not added
        if cell.cell_type == "code":
            yield number, cell


def ended(exit_code: int | None) -> str:
    """Say how a process ended.

    Args:
        exit_code: as ``subprocess`` gives it: negative for a signal.
    """
    if exit_code is None:
        return "died"
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = " (often: out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def at(number: int, cell, error: str, traceback: str = "") -> Failure:
    """Return the failure that a cell is to blame for."""
    name, first = cell.get("id", ""), (cell.source.strip().splitlines() or [""])[0][:60]
    reason = f"cell {number} [{name}] ({first}): {error}"
    return Failure(reason, number, name, cell.source, COLOURS.sub("", traceback))


def _shown(number: int, cell, problem: str) -> Failure | None:
    """Return the failure that a cell's own outputs show."""
    for output in cell.outputs:
        if output.output_type == "error":
            text = f"{output.ename}: {last_line(output.evalue)}".rstrip(": ")
            if output.ename == "SystemExit":
                text += " (a call of exit(): the cells below it did not run)"
            if problem and output.ename.startswith("KeyboardInterrupt"):  # its time was over
                text = problem
            return at(number, cell, text, "\n".join(output.traceback))
        text = output.get("text", "") if output.get("name") == "stderr" else ""
        if warning := next(filter(OWN_WARNING.match, text.splitlines()), ""):
            return at(number, cell, warning.split(": ", 1)[-1], text)
    return None


def find(notebook, problem: str = "") -> Failure | None:
    """Return why an executed notebook failed; None if it did not.

    Args:
        notebook: as papermill left it.
        problem: what ended the execution, if it was not a cell's exception.
    """
    cells = list(own_cells(notebook))
    for number, cell in cells:
        if failure := _shown(number, cell, problem):
            return failure
    state = [(number, cell, cell.metadata.get("papermill", {})) for number, cell in cells]
    started = [(number, cell) for number, cell, known in state if known.get("start_time")]
    if problem:
        return at(*started[-1], problem) if started else Failure(problem)
    for number, cell, known in state:
        if cell.source.strip() and (known.get("status") != "completed" or not known["start_time"]):
            return at(number, cell, "it did not run to its end")
    return None
