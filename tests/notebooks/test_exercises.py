"""The exercises of all notebooks, read and not run: names, stubs, solutions."""

import re
import symtable

import pytest

from nbregress import notebooks
from support.cells import Cells

STEMS = [
    path.stem
    for path in notebooks.find([])
    if any("exercise" in notebooks.tags(cell) for cell in notebooks.read(path).cells)
]
# A main notebook has three to five; the page to start with shows what one is, a companion may have any number.
LEAST = {stem: 3 if re.match(r"(?!00)\d+_", stem) else 1 for stem in STEMS}


def exercises(book):
    """Yield each exercise's number, its stub and its solution."""
    for name in book.by_id:
        if found := re.fullmatch(r"exercise-(\d+)", name):
            yield found[1], book.by_id[name].source, book.solution(f"solution-{found[1]}").strip()


def assigned(source):
    """Return the names that a cell binds: assigned, imported, defined."""
    source = re.sub(r"(?m)^(\s*)[!%].*$", r"\1pass", source)
    names = symtable.symtable(source, "cell", "exec").get_symbols()
    return {n.get_name() for n in names if n.is_assigned() or n.is_imported()}


@pytest.mark.parametrize("stem", STEMS)
def test_no_stub_and_no_solution_overwrites_a_name_of_the_notebook(stem):
    book = Cells(stem)
    others = [
        assigned(cell.source)
        for cell in book.notebook.cells
        if cell.cell_type == "code" and not cell.id.startswith("exercise-")
    ]
    taken = set.union(*others)
    assert len(taken) > 15
    for number, stub, solution in exercises(book):
        assert not (assigned(stub) | assigned(solution)) & taken, number


@pytest.mark.parametrize("stem", STEMS)
def test_exercises_share_no_name_but_answer(stem):
    seen = {"answer"}
    for number, stub, solution in exercises(Cells(stem)):
        names = (assigned(stub) | assigned(solution)) - {"answer"}
        assert not names & seen, number
        seen |= names


@pytest.mark.parametrize("stem", STEMS)
def test_exercises_are_in_order_and_each_is_the_solution_with_a_gap(stem):
    book = Cells(stem)
    found = [*exercises(book)]
    assert [int(number) for number, *_ in found] == sorted({int(number) for number, *_ in found})
    texts = "\n".join(c.source for c in book.notebook.cells if c.cell_type == "markdown")
    shown = re.findall(r"^\*\*(\d+) \(", texts, re.MULTILINE)  # an id stays when its exercise moves
    assert shown == [str(i + 1) for i in range(len(found))]
    assert LEAST[stem] <= len(found) <= 5
    for number, stub, solution in found:
        before, gap = re.split(r"(?:return )?\.\.\.", stub.strip())
        assert solution.startswith(before) and solution.endswith(gap), number
        assert len(solution) > len(before + gap) and "..." not in solution
