"""The book: an offline site of the recorded notebooks and the repository's documents, by Sphinx and MyST-NB."""

import html
import io
import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import yaml

from nbregress import notebooks
from nbregress.lint import repository
from pefthelpers.errors import UserError
from peftroom import prepared

# The last number of a part; what comes after all of them is the last part.
PARTS = {"Start": 0, "Methods": 6, "Comparison": 7, "Beyond": 99}
DOCUMENTS = {
    "TEACHING.md": "For a room",
    "docs/room.md": "For a room",
    "docs/pages.md": "For a room",
    "docs/accessibility.md": "For a room",
    "docs/tools.md": "Tools",
    "CONTRIBUTING.md": "For maintainers",
    "data/README.md": "For maintainers",
    "docs/moved.md": "For maintainers",
    "docs/licences.md": "For maintainers",
}
TREE = "```{{toctree}}\n{options}\n\n{entries}\n```"
# Not a heading in the words of a script.
HEADING = re.compile(
    r'(<h[1-6]>)((?:(?!<h\d|</h\d|</script).)*)(?=<a class="headerlink")', re.DOTALL
)


def slug(title: str) -> str:
    """Return the anchor of a heading, or of Jupyter's anchor of it, as GitHub writes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def tree(entries: list[str], caption: str = "") -> str:
    """Return a branch of the book's contents as MyST; nothing for no entries."""
    options = f":hidden:\n:caption: {caption}" if caption else ":hidden:"
    return TREE.format(options=options, entries="\n".join(entries)) if entries else ""


def family(paths: list[Path]) -> dict[Path, list[Path]]:
    """Return each main notebook with its companions; a companion whose notebook is absent stands alone."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(paths):
        number = path.stem.split("_")[0]
        main = [each for each in found if each.stem.split("_")[0] == number.rstrip("abcdefgh")]
        if main:
            found[main[0]].append(path)
        else:
            found[path] = []
    return found


def contents(paths: list[Path], documents: list[str]) -> str:
    """Return the book's contents: notebooks by part, then the documents by theirs."""
    parts: dict[str, list[str]] = {}
    for path in family(paths):
        number = int(re.match(r"\d*", path.stem)[0] or 0)
        part = next(name for name, last in PARTS.items() if number <= last)
        parts.setdefault(part, []).append(f"notebooks/{path.stem}")
    for name in documents:
        parts.setdefault(DOCUMENTS[name], []).append(name.removesuffix(".md"))
    return "\n\n".join(tree(entries, caption) for caption, entries in parts.items())


def stage(paths: list[Path], root: Path, folder: Path) -> None:
    """Write what Sphinx reads: notebooks and documents, with the links that the book needs."""
    there = [name for name in DOCUMENTS if (root / name).is_file()]
    placed = {root / name: name for name in there} | {root / "README.md": "index.md"}
    placed |= {path.resolve(): f"notebooks/{path.name}" for path in paths}
    branches = {each.resolve(): kin for each, kin in family(paths).items()}
    for file, name in placed.items():
        near = os.path.dirname(name) or "."
        seen = {each: os.path.relpath(other, near) for each, other in placed.items()}
        lead, target = prepared.leads(file, seen), folder / name
        in_output = lambda to, lead=lead: re.sub(
            r"\.(ipynb|md)(?=#|$)", ".html", anchored(lead(to))
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".ipynb":
            ready = prepared.notebook(file, lambda to, lead=lead: anchored(lead(to)), in_output)
            below = tree([each.stem for each in branches.get(file, [])])
            ready.cells += [nbformat.v4.new_markdown_cell(below)] if below else []
            for cell in ready.cells:
                cell.metadata.tags = shown_as(notebooks.tags(cell))
            nbformat.write(ready, target)
            continue
        text = file.read_text(encoding="utf-8")
        for picture in re.findall(r"!\[[^\]]*\]\((?!\w+:)([^)\s]+)\)", text):
            if not (file.parent / picture).is_file():
                raise UserError(f"{file.name} shows {picture}, a picture that is not there.")
            (target.parent / picture).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.parent / picture, target.parent / picture)
            seen[(file.parent / picture).resolve()] = picture
        text = prepared.linked(text, lead)
        target.write_text(
            f"{text}\n\n{contents(paths, there)}\n" if name == "index.md" else text, "utf-8"
        )


def anchored(target: str) -> str:
    """Return a link within the book with its anchor as ``slug`` writes it."""
    path, mark, anchor = target.partition("#")
    return target if re.match(r"[a-z]+:", target) else path + mark + slug(anchor)


def shown_as(tags: list[str]) -> list[str]:
    """Return a cell's tags for MyST-NB: set-up folded, a quiz without its line of code."""
    folded = {"setup": "hide-input", "quiz": "remove-input"}
    return [*tags, *(folded[each] for each in tags if each in folded)]


def settings() -> dict[str, object]:
    """Return Sphinx's settings: ``templates/book/sphinx.yaml``, and what this machine adds."""
    for package in ("sphinx", "myst_nb", "sphinx_book_theme", "sphinx_copybutton"):
        prepared.installed(package)
    folder = prepared.TEMPLATES / "book"
    said = yaml.safe_load((folder / "sphinx.yaml").read_text(encoding="utf-8"))
    said["html_static_path"] = [str(prepared.mathjax()), str(folder / "static")]
    said["html_favicon"] = str(folder / "static" / "favicon.svg")
    said["html_theme_options"]["repository_url"] = repository()
    return said


def finished(page: str) -> str:
    """Return a page of the book with an anchor as links name it at each heading, captions marked."""

    def name(match: re.Match) -> str:
        title = html.unescape(re.sub(r"<[^>]*>", "", match[2]))
        return f'{match[1]}<span id="{slug(title)}"></span>{match[2]}'

    def unless_there(match: re.Match) -> str:
        anchor = re.search(r'id="(.*?)"', name(match))[1]
        return match[0] if f'id="{anchor}"' in page else name(match)

    page = HEADING.sub(unless_there, page)
    page = page.replace(
        '<summary><span class="toctree', '<summary aria-label="companions"><span class="toctree'
    )
    return page.replace(
        "<p><strong>Figure.</strong>", '<p class="caption"><strong>Figure.</strong>'
    )


def build(paths: list[Path], out: Path) -> list[Path]:
    """Build the book of notebooks into a folder; return its pages.

    Raises:
        UserError: Sphinx has a word to say about a page, be it only a warning.
    """
    said = settings()
    from sphinx.application import Sphinx
    from sphinx.errors import SphinxError
    from sphinx.util.docutils import docutils_namespace

    warnings = io.StringIO()
    with tempfile.TemporaryDirectory() as scratch, docutils_namespace():
        stage(paths, paths[0].resolve().parents[1], source := Path(scratch) / "source")
        shutil.rmtree(out, ignore_errors=True)
        places = (source, None, out, Path(scratch) / "read", "html")
        try:
            app = Sphinx(*places, confoverrides=said, status=None, warning=warnings, parallel=2)
            app.build()
        except SphinxError as error:
            raise UserError(f"The book was not built: {error}") from error
    plain = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).replace(f"{source}{os.sep}", "")
    if faults := [line for line in plain.splitlines() if re.search("WARNING|ERROR|CRITICAL", line)]:
        raise UserError(f"The book has {len(faults)} faults, the first: {faults[0]}")
    for template in out.glob("_static/*.html"):  # of the theme: no pages
        template.unlink()
    pages = sorted(out.rglob("*.html"))
    for page in pages:
        page.write_text(finished(page.read_text(encoding="utf-8")), encoding="utf-8")
    return [out / "index.html", *(page for page in pages if page.name != "index.html")]
