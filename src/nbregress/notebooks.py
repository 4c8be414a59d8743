"""What the runner, the recorder and the linter know about a notebook file."""

import ast
import hashlib
import json
from pathlib import Path

import nbformat

from pefthelpers.errors import UserError
from pefthelpers.paths import notebooks_dir


def find(names: list[str]) -> list[Path]:
    """Return the notebooks named: paths, numbers (``02``), stems, or the whole collection.

    Raises:
        UserError: a name that fits no notebook; the sentence lists those there are.
    """
    if not names:
        return sorted(notebooks_dir().glob("[0-9]*.ipynb"))
    return [_find_one(name) for name in names]


def _find_one(name: str) -> Path:
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name)
    known, stem = find([]), Path(name).name.removesuffix(".ipynb")
    fits = [path for path in known if stem in (path.stem, path.stem.split("_")[0])]
    if len(fits) != 1:
        choices = ", ".join(path.stem for path in known)
        raise UserError(f"Unknown notebook {name!r}: choose from {choices}.")
    return fits[0]


def read(path: Path) -> nbformat.NotebookNode:
    """Read a notebook.

    Raises:
        UserError: the file is not a notebook.
    """
    try:
        return parse(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is not a notebook that can be read: {error}") from error


def parse(text: str, name: str) -> nbformat.NotebookNode:
    """Read a notebook from its file's text.

    Raises:
        UserError: the text, of the file ``name``, is not a notebook.
    """
    try:
        return nbformat.reads(text, as_version=4)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} is not a notebook that can be read: {why}") from error


def tags(cell) -> list[str]:
    """Return a cell's tags."""
    return cell.get("metadata", {}).get("tags", [])


def code_cells(notebook) -> list:
    """Return the cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook) -> dict[str, object]:
    """Return the parameters of the cell tagged ``parameters`` with their defaults.

    Raises:
        UserError: the cell holds more than assignments of plain values.
    """
    values = {}
    for cell in (cell for cell in code_cells(notebook) if "parameters" in tags(cell)):
        try:
            for node in ast.parse(cell.source).body:
                target = getattr(node, "targets", [getattr(node, "target", None)])[0]
                assigned = isinstance(node, ast.Assign | ast.AnnAssign) and node.value
                if assigned and isinstance(target, ast.Name):
                    values[target.id] = ast.literal_eval(node.value)
        except (SyntaxError, ValueError) as error:
            raise UserError(
                f"The parameters cell {cell.get('id', '')!r} must hold assignments of plain values "
                "alone: derived ones belong into the next cell."
            ) from error
    return values


def source_hash(notebook) -> str:
    """Return a hash of the code cells and their ids: outputs recorded under it are fresh.

    Colab saves notebooks whose cells have no ids.
    """
    cells = [[cell.get("id", ""), cell.source] for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]
