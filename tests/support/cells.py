"""Cells of the collection's notebooks, run by tests."""

from nbregress import notebooks


class Cells:
    """The cells of a notebook of the collection, by id, run in one namespace."""

    def __init__(self, stem: str) -> None:
        """Open a notebook of the collection."""
        self.notebook = notebooks.read(notebooks.notebooks_dir() / f"{stem}.ipynb")
        self.by_id = {cell.id: cell for cell in self.notebook.cells}
        self.namespace: dict = {}

    def run(self, *ids: str) -> object:
        """Execute cells; return the value of the last expression of the last one."""
        return self.execute("\n".join(self.by_id[name].source for name in ids))

    def execute(self, source: str) -> object:
        """Execute source in the namespace; return the value of its last expression."""
        import ast

        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "<cells>", "exec"), self.namespace)  # noqa: S102 - our own notebooks
        if last is not None:
            return eval(compile(ast.Expression(last.value), "<cells>", "eval"), self.namespace)

    def verdicts(self, number):
        """Return what the check says of an exercise as it stands, and with its solution."""
        stub, solution = (
            self.by_id[f"exercise-{number}"].source,
            self.solution(f"solution-{number}"),
        )
        return self.execute(stub).status, self.execute(solution).status

    def solution(self, name: str) -> str:
        """Return the code folded in a solution cell."""
        return self.by_id[name].source.split("```python\n")[1].split("```")[0]

    def exercise(self, number: int) -> tuple:
        """Return the verdicts on an exercise's stub and on its solution: the stub filled in."""
        stub, solution = (
            self.by_id[f"exercise-{number}"].source,
            self.solution(f"solution-{number}"),
        )
        blank, filled = (text.split("...") for text in (stub, solution))
        assert len(blank) == 2 and len(filled) == 1
        assert solution.startswith(blank[0]) and solution.strip().endswith(blank[1].strip())
        return self.execute(stub), self.execute(solution)
