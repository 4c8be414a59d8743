"""What the runner, the recorder and the linter know about a notebook file."""

import ast
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat

from pefthelpers.errors import UserError
from pefthelpers.paths import notebooks_dir

MAGIC = re.compile(r"^[ \t]*[%!].*$", re.MULTILINE)  # lines for IPython or a shell
OTHER_LANGUAGE = re.compile(
    r"\s*%%(?!(capture|prun|time|timeit)\b)\w"
)  # a cell magic: %%bash, %%html


def find(names: list[str]) -> list[Path]:
    """Return the notebooks named: paths, numbers (``02``), stems, or the whole collection.

    Raises:
        UserError: a name that fits no notebook; the sentence lists those there are. Or there are none.
    """
    if names:
        return [_find_one(name) for name in names]
    folder = notebooks_dir()
    if not (found := sorted(folder.glob("[0-9]*.ipynb"))):
        raise UserError(
            f"{folder} holds no notebooks: run this in a clone, or name the path of one that exists."
        )
    return found


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
    """Read a notebook from its file's text; each cell has an id, the same at each reading.

    Colab saves cells without ids, and a cell that was copied by hand has another one's. nbformat gives them
    random ones.

    Raises:
        UserError: the text, of the file ``name``, is not a notebook.
    """
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError("its JSON is no object")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that are missing or there twice
            notebook = nbformat.reads(text, as_version=4)
        ids = [cell.get("id", "") for cell in content.get("cells", [])]
        ids += [""] * (len(notebook.cells) - len(ids))
        for cell, name_of_its_own in zip(notebook.cells, unique(ids), strict=True):
            cell["id"] = name_of_its_own
            complete(cell)
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} is not a notebook that can be read: {why}") from error
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)  # cells have had ids since
    return notebook


def unique(ids: Iterable[str]) -> Iterator[str]:
    """Yield ids; one that is missing or there already has its cell's number added."""
    seen = set()
    for number, name in enumerate(ids):
        while not name or name in seen:
            name = f"{name or 'cell'}-{number}"[-64:]
        seen.add(name)
        yield name


def complete(cell) -> None:
    """Give a cell what every cell has.

    Raises:
        TypeError: its source is no text.
    """
    if not isinstance(cell.get("source"), str):
        raise TypeError(f"the source of the cell {cell.id!r} is no text")
    cell.setdefault("metadata", nbformat.NotebookNode())
    if cell.cell_type == "code":
        cell.setdefault("outputs", [])
        cell.setdefault("execution_count", None)


def tags(cell) -> list[str]:
    """Return a cell's tags."""
    return cell.get("metadata", {}).get("tags", [])


def code_cells(notebook) -> list:
    """Return the cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook) -> dict[str, object]:
    """Return the parameters of the cell tagged ``parameters`` with their defaults.

    Of one that may be None, by its annotation, and of one without a value the default is None.

    Raises:
        UserError: the cell holds more than assignments of plain values, it is no code, or there are several:
            values given to a run are written below the first one, and the next one would undo them.
    """
    tagged = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    if len(tagged) > 1 or any(cell.cell_type != "code" for cell in tagged):
        names = ", ".join(repr(cell.id) for cell in tagged)
        raise UserError(
            f"One cell of code may be tagged parameters, not {names}: untag the others."
        )
    values = {}
    for cell in tagged:
        try:
            for node in ast.parse(MAGIC.sub("", cell.source)).body:
                values |= assigned(node)
        except (SyntaxError, ValueError) as error:
            raise UserError(
                f"The parameters cell {cell.id!r} must hold assignments of plain values "
                "alone: derived ones belong into the next cell."
            ) from error
    return values


def assigned(node: ast.stmt) -> dict[str, object]:
    """Return what a statement assigns: ``a = 1``, ``a = b = 1``, ``a: float = 1`` or ``a: float``.

    Raises:
        ValueError: a value that is no literal.
    """
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        value, kind = node.value and ast.literal_eval(node.value), ast.unparse(node.annotation)
        if re.search(r"\b(None|Optional|Any)\b", kind):
            value = None
        return {node.target.id: float(value) if kind == "float" and value is not None else value}
    targets = node.targets if isinstance(node, ast.Assign) else []
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return dict.fromkeys(names, ast.literal_eval(node.value)) if names else {}


def constants(source: str) -> dict[str, object]:
    """Return the names that a cell's own lines set to literals, with these."""
    values = {}
    with suppress(SyntaxError):
        for node in ast.parse(MAGIC.sub("", source)).body:
            with suppress(ValueError):  # what it sets is worked out
                values |= assigned(node)
    return values


def source_hash(notebook) -> str:
    """Return a hash of the code cells and their ids: outputs recorded under it are fresh."""
    cells = [[cell.id, cell.source] for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]
