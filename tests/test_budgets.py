"""Lines of each package, and of what each notebook's imports reach, against pyproject.toml's budgets.

``PYTHONPATH=tests python -m tests.test_budgets`` prints the table.
"""

import ast
from pathlib import Path

import pytest
import tomllib

from support.imports import SRC, closure, module_file, notebook_source, packages

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pefthelpers"]["budgets"]


def lines(files):
    """Count the lines of files."""
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def counts():
    """Yield ``(what, its lines, its budget)``; a budget of None is not set."""
    for name in packages():
        yield name, lines((SRC / name).rglob("*.py")), BUDGETS["packages"].get(name)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        reached = {module_file(name) for name in closure(ast.parse(notebook_source(path)))}
        yield path.stem, lines(reached), BUDGETS["notebooks"].get(path.stem)


@pytest.mark.parametrize(("name", "found", "budget"), list(counts()))
def test_it_keeps_to_its_budget(name, found, budget):
    assert budget is not None, f"write a budget for {name} into pyproject.toml: {found} lines today"
    assert found <= budget, (
        f"{name} has {found} lines, {found - budget} over its budget: make it smaller, or raise the "
        "number in pyproject.toml in a commit that says which capability came with it"
    )


def test_all_of_src_keeps_to_the_issue_s_budget():
    assert lines(SRC.rglob("*.py")) <= BUDGETS["all"]


if __name__ == "__main__":
    for row in counts():
        print("{:28}{:>7} of {}".format(*row))
