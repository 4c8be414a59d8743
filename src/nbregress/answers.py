"""A notebook's exercises: their stubs filled with the solutions, the solutions taken out, and what the checks said."""

import re

from nbregress import notebooks
from nbregress.failures import Failure, at, own_cells

WANTED = {"stubs": "not attempted", "solutions": "correct"}
SAID = re.compile(r"^\S (Not attempted|Correct|Not yet)\. ")  # how a verdict's text begins
FOLDED = re.compile(
    r"<details><summary>Solution</summary>.*?```python\n(.*?)```.*?</details>\s*", re.DOTALL
)


def solve(notebook) -> int:
    """Fill each exercise's stub with the solution folded below it, in place; return how many there are.

    Raises:
        ValueError: an exercise without a solution.
    """
    stubs = [cell for cell in notebook.cells if "exercise" in notebooks.tags(cell)]
    for stub in stubs:
        below = notebook.cells[notebook.cells.index(stub) + 1 :]
        found = FOLDED.search(below[0].source) if below else None
        if found is None:
            raise ValueError(f"the exercise [{stub.id}] has no solution below it")
        stub.source = found[1].strip()
    return len(stubs)


def strip(notebook) -> int:
    """Take the solutions out, in place; what else a cell says stays. Return how many there were."""
    count = 0
    for cell in [cell for cell in notebook.cells if "solution" in notebooks.tags(cell)]:
        cell.source, taken = FOLDED.subn("", cell.source)
        cell.metadata.tags.remove("solution")
        count += taken
        if not cell.source.strip():
            notebook.cells.remove(cell)
    return count


def verdicts(notebook) -> dict[str, str]:
    """Return what the check of each exercise said when the notebook ran, by the cell's id; empty for nothing."""
    found = {}
    for cell in notebooks.code_cells(notebook):
        if "exercise" in notebooks.tags(cell):
            texts = ["".join(each.get("data", {}).get("text/plain", "")) for each in cell.outputs]
            found[cell.id] = next(
                (SAID.match(text)[1].lower() for text in texts if SAID.match(text)), ""
            )
    return found


def misjudged(notebook, answers: str) -> Failure | None:
    """Return the first exercise whose check did not say what it should.

    Args:
        notebook: as it was executed.
        answers: ``stubs`` (all must say *not attempted*), ``solutions`` (all *correct*) or empty: nothing is asked.
    """
    said = verdicts(notebook) if answers else {}
    for number, cell in own_cells(notebook):
        if said.get(cell.id, WANTED.get(answers)) != WANTED.get(answers):
            words = said[cell.id] or "nothing"
            return at(number, cell, f"its check says {words!r}, not {WANTED[answers]!r}")
    return None
