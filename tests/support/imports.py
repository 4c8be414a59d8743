"""What a program or a notebook imports, read from its syntax."""

import ast
import json
import re
from pathlib import Path

SRC = Path(__file__).resolve().parents[2] / "src"


def packages():
    """Return the names of our packages."""
    return sorted(path.parent.name for path in SRC.glob("*/__init__.py"))


def module_file(name):
    """Return the file of one of our modules, None if there is no such module."""
    path = SRC / Path(*name.split("."))
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def notebook_source(path):
    """Return the Python of a notebook's cells; what IPython alone understands becomes ``pass``."""
    cells = [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    code = [source for source in code if not source.startswith("%%")]
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", "\n".join(code), flags=re.MULTILINE)


def imported(tree):
    """Return every module that a syntax tree imports, ``from x import y`` as ``x`` and ``x.y``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def closure(tree):
    """Return our modules that a tree's imports reach, those inside of functions too."""
    seen, todo = set(), imported(tree)
    while todo:
        parts = todo.pop().split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            if name not in seen and (file := module_file(name)):
                seen.add(name)
                todo |= imported(ast.parse(file.read_text(encoding="utf-8")))
    return seen
