"""The house style of notebooks as checks that a machine can make."""

import re
import statistics
from collections.abc import Iterator
from importlib.metadata import metadata, version
from pathlib import Path

from nbregress import notebooks, recorded, recorder

MAX_CODE_LINES, MAX_MARKDOWN_WORDS, MAX_FILE_KB = 25, 130, 520
PROSE_WORDS = (1200, 3500)
MAX_CELLS, MAX_CODE_IN_A_ROW, PROSE_PER_CODE_CELL = 80, 2, 50
TAGS = ("parameters", "setup", "exercise")
# What ruff knows nothing of; syntax, long lines, star imports, argparse and logging are its own (pyproject.toml).
FORBIDDEN = {
    "a try block outside the setup cell": r"^\s*try:",
    "a pip call outside the setup cell": r"^\s*[!%]\s*pip",
}
# A measured number belongs into a cell's output. Citations carry a year in brackets.
MEASURED = re.compile(r"\d+(\.\d+)?\s?(%|GiB|GB|MiB|MB|seconds|tok/s)(?!\w)")
# Folded solutions, code, tables, link targets and tags: the rest of a Markdown cell is its prose.
NO_PROSE = re.compile(
    r"<details>.*?</details>|```.*?```|^\|[^\n]*$|\]\([^)]*\)|<[^>]+>", re.DOTALL | re.MULTILINE
)
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
    """Return the source of every notebook's set-up cell: on Colab it installs this package's release.

    What Colab's own image is built around stays as it is: pip may not replace it. The package is imported before
    the libraries, because it silences what they would print then.
    """
    address, release = repository(), version("pefthelpers")
    return f"""import sys
from importlib.metadata import distributions
if "google.colab" in sys.modules and not [*distributions(name="pefthelpers")]:
    !pip list --format=freeze | grep -E "^(torch|transformers|numpy)==" > kept
    %pip install -q -c kept "pefthelpers @ git+{address}@v{release}"
    if [each.version for each in distributions(name="pefthelpers")] != ["{release}"]:
        sys.exit("pefthelpers {release} was not installed: pip says why above, README what helps.")
import pefthelpers  # before the libraries: it silences what no reader can act on"""


def code_lines(cell) -> int:
    """Count a cell's lines of code: no blank lines, no comments."""
    return sum(bool(line.strip()) and line.strip()[0] != "#" for line in cell.source.splitlines())


def of_file(notebook, path: Path) -> Iterator[tuple[bool, str]]:
    """Check kernel, widget state, outputs' freshness, size: yield whether a rule is broken, and which."""
    data, size = notebook.metadata, path.stat().st_size / 1000
    kernel, language = data.get("kernelspec"), data.get("language_info", {})
    yield kernel != recorder.KERNEL, "kernelspec must be python3 with a language; run lint --fix"
    yield "name" not in language, "language_info is missing; run lint --fix"
    yield "widgets" in data, "widget state is committed; run lint --fix"
    misrecorded = recorded.read(notebook)[2]
    yield misrecorded, misrecorded and misrecorded.reason
    yield stale(notebook), "outputs are stale; run `pefthelpers record` or lint --fix to strip them"
    yield size > MAX_FILE_KB, f"the file has {size:.0f} kB, more than {MAX_FILE_KB}"
    no_badge = badge(path) not in notebook.cells[0].source
    yield no_badge, "the Colab badge does not follow pyproject.toml; run lint --fix"


def stale(notebook) -> bool:
    """Tell whether recorded outputs belong to another source than the cells'."""
    has_outputs = any(cell.get("outputs") for cell in notebook.cells)
    recorded = notebook.metadata.get("pefthelpers", {}).get("source_hash")
    return has_outputs and recorded != notebooks.source_hash(notebook)


def of_structure(notebook, path: Path) -> Iterator[tuple[bool, str]]:
    """Check the cells that every notebook has, cell lengths on the whole, and the amount of prose."""
    code = notebooks.code_cells(notebook)
    parameters, setups, exercises = (
        [cell.source for cell in code if tag in notebooks.tags(cell)] for tag in TAGS
    )
    knobs = (
        len(parameters) == 1 and {"PROFILE", "SEED"} <= notebooks.constants(parameters[0]).keys()
    )
    yield not knobs, "exactly one cell tagged parameters must define PROFILE and SEED"
    yield (
        setups != [setup()],
        "the set-up cell is missing or differs from the others'; run lint --fix",
    )
    # The set-up cell is one text in all of them, and nobody's lesson.
    lengths = sorted(code_lines(cell) for cell in code if cell.source not in setups) or [0]
    median, ninth = statistics.median(lengths), lengths[int(0.9 * (len(lengths) - 1))]
    yield median > 6, f"the median code cell has {median:.0f} lines, more than 6"
    yield ninth > 15, "fewer than 9 in 10 code cells have at most 15 lines"
    appendix = re.match(r"\d+[a-z]|00_", path.stem)  # 05b, or where one starts: it may be short
    words = sum(prose(cell) for cell in notebook.cells if cell.cell_type == "markdown")
    least, most = PROSE_WORDS
    fits = (0 if appendix else least) <= words <= most
    yield not fits, f"{words} words of prose; the guide is {least} to {most}"
    yield not appendix and len(exercises) < 3, "fewer than three cells tagged exercise"


def of_telling(notebook) -> Iterator[tuple[bool, str]]:
    """Check that a reader is led: few cells, words between them, and after a figure or a table what to see in it."""
    cells = notebook.cells
    code = notebooks.code_cells(notebook)
    words = sum(prose(cell) for cell in cells if cell.cell_type == "markdown") / (len(code) or 1)
    yield len(cells) > MAX_CELLS, f"{len(cells)} cells, more than {MAX_CELLS}"
    few = f"{words:.0f} words of prose per code cell, fewer than {PROSE_PER_CODE_CELL}"
    yield words < PROSE_PER_CODE_CELL, few
    in_a_row = 0
    for number, cell in enumerate(cells):
        opening = {"setup", "parameters"} & set(notebooks.tags(cell))
        in_a_row = in_a_row + 1 if cell.cell_type == "code" and not opening else 0
        many = f"cell {number} is code number {in_a_row} without a word between"
        yield in_a_row > MAX_CODE_IN_A_ROW, many
        after = cells[number + 1] if number + 1 < len(cells) else None
        follows = after.source if after and after.cell_type == "markdown" else ""
        shown = "".join(str(each) for each in cell.get("outputs", []))
        figures = re.findall(r"<(?:img|svg)\b[^>]*>", shown)
        yield (
            figures and not follows.startswith("**Figure"),
            f"cell {number} shows a figure, and no caption follows: a Markdown cell that begins with **Figure.**",
        )
        blind = [each for each in figures if "<img" in each and not re.search(r'alt="[^"]', each)]
        yield blind, f"cell {number} shows a figure without alt text"
        no_words = "<table" in shown and not follows
        yield no_words, f"cell {number} shows a table, and no text follows that says what to see"


def of_headings(notebook) -> Iterator[tuple[bool, str]]:
    """Check that headings are a table of contents: one title, and no level left out on the way down."""
    words = [
        NO_PROSE.sub("", cell.source) for cell in notebook.cells if cell.cell_type == "markdown"
    ]
    found = re.findall(r"^(#+) +(.+)$", "\n\n".join(words), re.MULTILINE)
    depths = [0, *(len(signs) for signs, _ in found)]
    yield depths.count(1) != 1, f"{depths.count(1)} headings of the first level, not one"
    for above, (signs, title) in zip(depths, found, strict=False):
        yield len(signs) > above + 1, f"a level is left out above the heading {title!r}"


def prose(cell) -> int:
    """Count a Markdown cell's words of prose."""
    return len(NO_PROSE.sub("", cell.source).split())


def of_code(cell) -> Iterator[tuple[bool, str]]:
    """Check one code cell."""
    lines, is_setup = code_lines(cell), "setup" in notebooks.tags(cell)
    ours = not notebooks.OTHER_LANGUAGE.match(cell.source)  # Python
    yield lines > MAX_CODE_LINES, f"has {lines} lines of code, more than {MAX_CODE_LINES}"
    for name, pattern in FORBIDDEN.items() if ours else ():
        yield not is_setup and re.search(pattern, cell.source, re.MULTILINE), f"has {name}"
    for output in cell.outputs:
        warns = output.get("name") == "stderr"
        yield warns, f"shows a warning: {output.get('text', '').strip()[:80]}"
        yield output.output_type == "error", "shows an error"


def of_markdown(cell) -> Iterator[tuple[bool, str]]:
    """Check one Markdown cell."""
    text = NO_PROSE.sub("", cell.source)
    words = len(text.split())
    yield words > MAX_MARKDOWN_WORDS, f"has {words} words, more than {MAX_MARKDOWN_WORDS}"
    for line in text.splitlines() if "generated" not in notebooks.tags(cell) else []:
        if (hit := MEASURED.search(line)) and not re.search(r"(19|20)\d\d", line):
            yield True, f"types a number into prose without a source: {hit[0]}"


def problems(path: Path) -> list[str]:
    """Return what breaks the house style, one sentence each."""
    notebook = notebooks.read(path)
    if not notebook.cells:
        return ["it has no cells: there is nothing to check"]
    checks = [*of_file(notebook, path), *of_structure(notebook, path), *of_telling(notebook)]
    checks += of_headings(notebook)
    for number, cell in enumerate(notebook.cells):
        private = PRIVATE.search(str(cell.source) + str(cell.get("outputs", "")))
        found = [*(of_code if cell.cell_type == "code" else of_markdown)(cell)]
        found.append((private, "shows a path of a machine or a token"))
        checks += [(broken, f"cell {number} {rule}") for broken, rule in found]
    return [sentence for broken, sentence in checks if broken]


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
    for title in notebook.cells[:1]:
        old = r"\[!\[Open in Colab\].*?\)\]\(.*?\)"
        title.source = re.sub(old, badge(path), title.source)
    recorder.write(path, notebook)
