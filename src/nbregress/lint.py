"""The house style of notebooks as checks that a machine can make."""

import ast
import re
import statistics
from importlib.metadata import metadata
from pathlib import Path

from nbregress import notebooks, recorder

MAX_CODE_LINES, MAX_MARKDOWN_WORDS, MAX_LINE = 25, 90, 100
MAX_FILE_KB = 400
PROSE_WORDS = (1200, 2200)
FORBIDDEN = {
    "a try block outside the setup cell": r"^\s*try:",
    "a star import": r"^\s*from \S+ import \*",
    "a pip call outside the setup cell": r"^\s*[!%]\s*pip",
    "argparse or logging": r"^\s*import (argparse|logging)",
}
# A measured number belongs into a cell's output. Citations carry a year in brackets.
MEASURED = re.compile(r"\d+(\.\d+)?\s?(%|GiB|GB|MiB|MB|seconds|tok/s)(?!\w)")
PRIVATE = re.compile(r"(/(home|Users|root|work|tmp)/|[A-Z]:\\\\|hf_[A-Za-z0-9]{20})")


def repository() -> str:
    """Return the repository's public address, which stands once, in pyproject.toml."""
    urls = metadata("pefthelpers").get_all("Project-URL") or []
    return next(url.split(", ", 1)[1] for url in urls if url.startswith("Repository"))


def badge(path: Path) -> str:
    """Return the Colab badge of a notebook as Markdown."""
    colab = repository().replace("https://github.com/", "https://colab.research.google.com/github/")
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({image})]({colab}/blob/main/notebooks/{path.name})"


def setup() -> str:
    """Return the source of every notebook's set-up cell: on Colab it installs only this package.

    The package is imported before the libraries, because it silences what they would print then.
    """
    return f"""import importlib.util, sys
if "google.colab" in sys.modules and not importlib.util.find_spec("pefthelpers"):
    %pip install -q "pefthelpers @ git+{repository()}"
import pefthelpers  # before the libraries: it silences what no reader can act on"""


def code_lines(cell) -> int:
    """Count a cell's lines of code: no blank lines, no comments."""
    return sum(bool(line.strip()) and line.strip()[0] != "#" for line in cell.source.splitlines())


def prose(cell) -> str:
    """Return a Markdown cell's prose: no folded solution, table, link target or code."""
    text = re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)|<[^>]+>", "", text)


def of_metadata(notebook, path: Path) -> list[str]:
    """Check kernel, widget state, outputs' freshness, size."""
    found = []
    if notebook.metadata.get("kernelspec") != recorder.KERNEL:
        found.append("kernelspec must be python3 with a language; run lint --fix")
    if "name" not in notebook.metadata.get("language_info", {}):
        found.append("language_info is missing; run lint --fix")
    if "widgets" in notebook.metadata:
        found.append("widget state is committed; run lint --fix")
    if stale(notebook):
        found.append("outputs are stale; run `pefthelpers record` or lint --fix to strip them")
    if (size := path.stat().st_size / 1000) > MAX_FILE_KB:
        found.append(f"the file has {size:.0f} kB, more than {MAX_FILE_KB}")
    if badge(path) not in notebook.cells[0].source:
        found.append("the Colab badge does not follow pyproject.toml; run lint --fix")
    return found


def stale(notebook) -> bool:
    """Tell whether recorded outputs belong to another source than the cells'."""
    has_outputs = any(cell.get("outputs") for cell in notebook.cells)
    recorded = notebook.metadata.get("pefthelpers", {}).get("source_hash")
    return has_outputs and recorded != notebooks.source_hash(notebook)


def is_appendix(path: Path) -> bool:
    """Tell whether a notebook's number ends in a letter, as 05b does: it may be short."""
    return path.stem.split("_")[0][-1].isalpha()


def of_structure(notebook, path: Path) -> list[str]:
    """Check the parameters cell, cell lengths on the whole, and the amount of prose."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    tagged = [cell for cell in code if "parameters" in notebooks.tags(cell)]
    if len(tagged) != 1 or {"PROFILE", "SEED"} - set(notebooks.parameters(notebook)):
        found.append("exactly one cell tagged parameters must define PROFILE and SEED")
    if [cell.source for cell in code if "setup" in notebooks.tags(cell)] != [setup()]:
        found.append("the set-up cell is missing or differs from the others'; run lint --fix")
    lengths = sorted(code_lines(cell) for cell in code)
    if statistics.median(lengths) > 6:
        found.append(
            f"the median code cell has {statistics.median(lengths):.0f} lines, more than 6"
        )
    if lengths[int(0.9 * (len(lengths) - 1))] > 15:
        found.append("fewer than 9 in 10 code cells have at most 15 lines")
    words = sum(len(prose(cell).split()) for cell in notebook.cells if cell.cell_type == "markdown")
    least, exercises = (0, 0) if is_appendix(path) else (PROSE_WORDS[0], 3)
    if not least <= words <= PROSE_WORDS[1]:
        found.append(f"{words} words of prose; the guide is {PROSE_WORDS[0]} to {PROSE_WORDS[1]}")
    if sum("exercise" in notebooks.tags(cell) for cell in code) < exercises:
        found.append("fewer than three cells tagged exercise")
    return found


def of_code(cell, number: int) -> list[str]:
    """Check one code cell."""
    found = []
    if (lines := code_lines(cell)) > MAX_CODE_LINES:
        found.append(f"cell {number} has {lines} lines of code, more than {MAX_CODE_LINES}")
    if longest := [line for line in cell.source.splitlines() if len(line) > MAX_LINE]:
        found.append(f"cell {number} has a line of {len(longest[0])} characters")
    if "setup" not in notebooks.tags(cell):
        for name, pattern in FORBIDDEN.items():
            if re.search(pattern, cell.source, re.MULTILINE):
                found.append(f"cell {number} has {name}")
    source = re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.MULTILINE)
    try:
        ast.parse(source)
    except SyntaxError as error:
        found.append(f"cell {number} is not Python: {error.msg}")
    for output in cell.outputs:
        if output.get("name") == "stderr":
            found.append(f"cell {number} shows a warning: {output.text.strip()[:80]}")
        if output.output_type == "error":
            found.append(f"cell {number} shows an error")
    return found


def of_markdown(cell, number: int) -> list[str]:
    """Check one Markdown cell."""
    text, found = prose(cell), []
    if (words := len(text.split())) > MAX_MARKDOWN_WORDS:
        found.append(f"cell {number} has {words} words, more than {MAX_MARKDOWN_WORDS}")
    if "generated" in notebooks.tags(cell):
        return found
    for line in text.splitlines():
        if (hit := MEASURED.search(line)) and not re.search(r"(19|20)\d\d", line):
            found.append(f"cell {number} types a number into prose without a source: {hit[0]}")
    return found


def problems(path: Path) -> list[str]:
    """Return what breaks the house style, one sentence each."""
    notebook = notebooks.read(path)
    found = of_metadata(notebook, path) + of_structure(notebook, path)
    for number, cell in enumerate(notebook.cells):
        check = of_code if cell.cell_type == "code" else of_markdown
        found += check(cell, number)
        if PRIVATE.search(str(cell.source) + str(cell.get("outputs", ""))):
            found.append(f"cell {number} shows a path of a machine or a token")
    return found


def fix(path: Path) -> None:
    """Strip stale outputs and tool metadata; let badge and set-up cell follow pyproject.toml."""
    notebook = notebooks.read(path)
    for cell in notebook.cells:
        if "setup" in notebooks.tags(cell):
            cell.source = setup()
    if stale(notebook):
        notebook.metadata.pop("pefthelpers", None)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
    title = notebook.cells[0]
    title.source = re.sub(r"\[!\[Open in Colab\].*?\)\]\(.*?\)", badge(path), title.source)
    recorder.write(path, notebook)
