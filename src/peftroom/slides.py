"""A deck of a recorded notebook: which cells are shown, what is said; docs/pages.md has the rule.

A cell's own ``slideshow.slide_type`` (``slide``, ``subslide``, ``-``, ``notes``, ``skip``) wins over the rule.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from nbregress import notebooks
from pefthelpers.paths import atomic_path
from peftroom import prepared

MOST_LINES = 15  # of code that a room can read
FENCES = re.compile(r"(```.*?```|<details>.*?</details>|\$\$.*?\$\$)", re.DOTALL)
# What of a text is shown whole: a formula, a table, a list, a quotation, and what begins in bold.
SHOWN = re.compile(r"\$\$|\||[-*] |\d+\. |> |\*\*|\*Above")
SENTENCE = re.compile(r".+?[.?!](?=\s|$)", re.DOTALL)
BOLD = re.compile(r"\*\*(?:Predict|Claim|Question|Figure)")
LIVE = ("<script", "<button", "<progress")  # belongs to a notebook, and its answer grows


def blocks(text: str) -> list[str]:
    """Return the paragraphs of Markdown; a fence, a formula and what is folded stay whole."""
    held: list[str] = []
    keep = lambda match: held.append(match[0]) or f"\0{len(held) - 1}\0"
    parts = re.split(r"\n\s*\n", FENCES.sub(keep, text))
    return [re.sub("\0(\\d+)\0", lambda m: held[int(m[1])], part).strip() for part in parts]


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each heading of Markdown, or "" before the first one, with its paragraphs."""
    heading, body = "", []
    for block in blocks(text):
        first, _, rest = block.partition("\n")
        if re.match("#+ ", first):
            if heading or body:
                yield heading, body
            heading, body = first, [rest] if rest.strip() else []
        elif block:
            body.append(block)
    if heading or body:
        yield heading, body


def shown(body: list[str]) -> list[str]:
    """Return what a slide shows of paragraphs: what stands out, else the first sentence."""
    body = [each for each in body if "<details>" not in each and "colab.research" not in each]
    picked = [each for each in body if SHOWN.match(each) or "$$" in each]
    for each in body:
        if each not in picked and (at := BOLD.search(each)):
            picked.append(each[at.start() :])
    if not picked and body and (first := SENTENCE.match(body[0])):
        picked = [first[0]]
    return picked


def typed(cell: NotebookNode, kind: str) -> NotebookNode:
    """Return a cell as a slide of a kind."""
    cell.metadata.slideshow = NotebookNode(slide_type=kind)
    return cell


def of_text(cell: NotebookNode) -> Iterator[NotebookNode]:
    """Yield the slides of a cell of text: a section begins a slide; what is left out is said."""
    for heading, body in sections(cell.source):
        kind = "slide" if re.match("##? ", heading) else "subslide" if heading else "-"
        said = "\n\n".join(each for each in body if "<details>" not in each)
        show = "\n\n".join([heading, *shown(body)]).strip()
        if show:
            yield typed(new_markdown_cell(show), kind)
        if said and said != "\n\n".join(shown(body)):
            yield typed(new_markdown_cell(said), "notes")


def of_quiz(number: str) -> Iterator[NotebookNode]:
    """Yield a slide of each question of a quiz for the room; the answers are said."""
    from pefthelpers import quiz

    for each in quiz.load(number):
        asked = [f"### {each['ask']}\n", *(f"1. {option['say']}" for option in each["options"])]
        said = [
            f"1. {'**Right.**' if option.get('right') else 'Not so.'} {option['why']}"
            for option in each["options"]
        ]
        yield typed(new_markdown_cell("\n".join(asked)), "subslide")
        yield typed(new_markdown_cell("\n".join(said)), "notes")


def of_code(cell: NotebookNode) -> Iterator[NotebookNode]:
    """Yield the slide of a cell of code: a picture or table without it, a definition, a short cell."""
    tags, pages = notebooks.tags(cell), []
    for output in cell.outputs:
        page = output.get("data", {}).get("text/html", "")
        if any(word in page for word in LIVE):
            output.data = NotebookNode({"text/plain": "(live in the notebook and in the book)"})
        else:
            pages.append(page)
    lines = cell.source.count("\n") + 1
    defines = any(tag.startswith("define-") for tag in tags) or "exercise" in tags
    if {"setup", "parameters", "generated"} & {*tags} or cell.id == "imports":
        return
    if asked := "quiz" in tags and prepared.QUIZ.search(cell.source):
        yield from of_quiz(asked[1])
        return
    if not (cell.outputs or defines):
        yield typed(new_markdown_cell(f"```python\n{cell.source}\n```"), "notes")
        return
    if any(re.search("<img|<svg|<table", page) for page in pages) and not defines:
        cell.metadata.tags = [*tags, "remove-input"]
        cell.outputs = [each for each in cell.outputs if "text/html" in each.get("data", {})]
    elif "exercise" in tags:
        cell.outputs = []
    elif lines > MOST_LINES:
        cell.source = "\n".join([*cell.source.split("\n")[: MOST_LINES - 1], "..."])
    yield typed(cell, "subslide")


def kind_of(cell: NotebookNode) -> str:
    """Return which slide a cell is."""
    return cell.metadata.get("slideshow", {}).get("slide_type", "-")


def headed(cells: list[NotebookNode]) -> bool:
    """Tell whether the last slide of these has a heading and nothing below it but text."""
    last = next((each for each in reversed(cells) if kind_of(each) != "notes"), None)
    return last is not None and last.source.startswith("#") and kind_of(last) != "-"


def rule(ready: NotebookNode) -> None:
    """Make a notebook's cells those of its deck."""
    cells: list[NotebookNode] = []
    for cell in ready.cells:
        chosen = cell.metadata.get("slideshow", {}).get("slide_type")
        if chosen:
            cells += [cell] if chosen != "skip" else []
        elif cell.cell_type == "code":
            for each in of_code(cell):  # the first one stands below its section's heading
                begun = cells and cells[-1].cell_type == "markdown" and headed(cells)
                cells.append(typed(each, "-") if begun and kind_of(each) == "subslide" else each)
        elif "generated" not in notebooks.tags(cell):
            cells += of_text(cell)
    ready.cells = cells


def build(paths: list[Path], out: Path) -> list[Path]:
    """Write a deck of each notebook into a folder, with reveal.js and MathJax beside them; return the decks."""
    source = prepared.installed("sphinx_revealjs") / "_static" / "revealjs"
    for name in ("dist/reveal.js", "plugin/notes/notes.js", "LICENSE"):
        (out / "reveal" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / name, out / "reveal" / name)
    shutil.copy(prepared.mathjax(), out / "reveal")
    style = (source / "dist" / "reveal.css").read_text(encoding="utf-8")
    decks = {path.resolve(): f"{path.stem}.html" for path in paths}
    for path in paths:
        lead = prepared.leads(path, decks)
        # A deck has no anchors: a link to a place of a notebook leads to its deck.
        to = lambda link, lead=lead: re.sub(r"(^|\.html)#.*", r"\1", lead(link))
        ready = prepared.notebook(path, to)
        rule(ready)
        page = prepared.convert(ready, "deck", reveal_css=style)
        with atomic_path(out / f"{path.stem}.html") as file:
            file.write_text(page, encoding="utf-8")
    return [out / name for name in decks.values()]
