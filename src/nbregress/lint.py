"""The house style of notebooks as checks that a machine can make."""

import re
import statistics
from importlib.metadata import metadata
from pathlib import Path

from nbregress import notebooks, recorder

MAX_CODE_LINES, MAX_MARKDOWN_WORDS, MAX_FILE_KB = 25, 90, 400
PROSE_WORDS = (1200, 2200)
TAGS = ("parameters", "setup", "exercise")
# What ruff knows nothing of; syntax, long lines, star imports, argparse and logging are its own (pyproject.toml).
FORBIDDEN = {
    "a try block outside the setup cell": r"^\s*try:",
    "a pip call outside the setup cell": r"^\s*[!%]\s*pip",
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


def said(checks: dict[str, bool]) -> list[str]:
    """Return the sentences of the rules that are broken."""
    return [sentence for sentence, broken in checks.items() if broken]


def of_metadata(notebook, path: Path) -> list[str]:
    """Check kernel, widget state, outputs' freshness, size."""
    data, size = notebook.metadata, path.stat().st_size / 1000
    return said(
        {
            "kernelspec must be python3 with a language; run lint --fix": data.get("kernelspec")
            != recorder.KERNEL,
            "language_info is missing; run lint --fix": "name" not in data.get("language_info", {}),
            "widget state is committed; run lint --fix": "widgets" in data,
            "outputs are stale; run `pefthelpers record` or lint --fix to strip them": stale(
                notebook
            ),
            f"the file has {size:.0f} kB, more than {MAX_FILE_KB}": size > MAX_FILE_KB,
            "the Colab badge does not follow pyproject.toml; run lint --fix": badge(path)
            not in notebook.cells[0].source,
        }
    )


def stale(notebook) -> bool:
    """Tell whether recorded outputs belong to another source than the cells'."""
    has_outputs = any(cell.get("outputs") for cell in notebook.cells)
    recorded = notebook.metadata.get("pefthelpers", {}).get("source_hash")
    return has_outputs and recorded != notebooks.source_hash(notebook)


def of_structure(notebook, path: Path) -> list[str]:
    """Check the parameters cell, cell lengths on the whole, and the amount of prose."""
    code = notebooks.code_cells(notebook)
    tagged = {name: [c for c in code if name in notebooks.tags(c)] for name in TAGS}
    knobs = {"PROFILE", "SEED"} <= set(notebooks.parameters(notebook))
    lengths = sorted(code_lines(cell) for cell in code)
    median, ninth = statistics.median(lengths), lengths[int(0.9 * (len(lengths) - 1))]
    words = sum(len(prose(cell).split()) for cell in notebook.cells if cell.cell_type == "markdown")
    appendix = path.stem.split("_")[0][-1].isalpha()  # as 05b: it may be short
    least, exercises = (0, 0) if appendix else (PROSE_WORDS[0], 3)
    guide = f"{PROSE_WORDS[0]} to {PROSE_WORDS[1]}"
    return said(
        {
            "exactly one cell tagged parameters must define PROFILE and SEED": not knobs
            or len(tagged["parameters"]) != 1,
            "the set-up cell is missing or differs from the others'; run lint --fix": [
                cell.source for cell in tagged["setup"]
            ]
            != [setup()],
            f"the median code cell has {median:.0f} lines, more than 6": median > 6,
            "fewer than 9 in 10 code cells have at most 15 lines": ninth > 15,
            f"{words} words of prose; the guide is {guide}": not least <= words <= PROSE_WORDS[1],
            "fewer than three cells tagged exercise": len(tagged["exercise"]) < exercises,
        }
    )


def of_code(cell, number: int) -> list[str]:
    """Check one code cell."""
    found = []
    if (lines := code_lines(cell)) > MAX_CODE_LINES:
        found.append(f"cell {number} has {lines} lines of code, more than {MAX_CODE_LINES}")
    if "setup" not in notebooks.tags(cell):
        for name, pattern in FORBIDDEN.items():
            if re.search(pattern, cell.source, re.MULTILINE):
                found.append(f"cell {number} has {name}")
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
        for cell in notebooks.code_cells(notebook):
            cell.outputs = []
    title = notebook.cells[0]
    title.source = re.sub(r"\[!\[Open in Colab\].*?\)\]\(.*?\)", badge(path), title.source)
    recorder.write(path, notebook)
