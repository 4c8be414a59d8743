"""A recorded notebook or document made ready to be shown elsewhere: its links, its badge, its quiz."""

import html
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import nbformat

from nbregress import notebooks
from nbregress.lint import repository
from pefthelpers.errors import UserError

TEMPLATES = Path(__file__).with_name("templates")
# What is code stays; a link or an image of Markdown: its text, where it leads to.
LINK = re.compile(
    r"(?P<code>```.*?```|`[^`\n]+`)|(?P<open>\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<to>[^)\s]+)\)",
    re.DOTALL,
)
PICTURE_ELSEWHERE = re.compile(r"!\[([^\]]*)\]\(https?://[^)]*\)")
QUIZ = re.compile(r"quiz\.show\(\s*[\"'](\w+)[\"']")
Where = Callable[[str], str]  # from a link as it is written to the one on the page


def installed(package: str) -> Path:
    """Return the folder of a package of the extra ``book``.

    Raises:
        UserError: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None:
        raise UserError(
            f"This command needs {package}: pip install 'pefthelpers[book]' brings what makes pages."
        )
    return Path(found.origin).parent


def mathjax() -> Path:
    """Return MathJax in one file, which draws formulas without fonts or a network."""
    return installed("sphinx-mathjax-offline") / "static" / "mathjax" / "tex-svg-full.js"


def leads(at: Path, pages: dict[Path, str]) -> Where:
    """Return where links of the file ``at`` lead: to one of the pages, else to the repository.

    Args:
        at: a notebook or a document of a clone.
        pages: files of that clone and the addresses of their pages, seen from the new page.

    The function that is returned raises UserError on a link to a file that is not there.
    """

    def to(target: str) -> str:
        path, hash_mark, anchor = target.partition("#")
        if re.match(r"[a-z]+:|#", target):
            return target
        file = (at.parent / unquote(path)).resolve()
        if file in pages:
            return pages[file] + hash_mark + anchor
        if not file.exists():
            raise UserError(f"{at.name} has a link to {target}, which is not there: mend the link.")
        root = next(folder for folder in at.resolve().parents if (folder / "notebooks").is_dir())
        kind = "tree" if file.is_dir() else "blob"
        return f"{repository()}/{kind}/main/{file.relative_to(root).as_posix()}{hash_mark}{anchor}"

    return to


def linked(text: str, to: Where) -> str:
    """Return Markdown with its links led elsewhere; a picture of another host becomes its words."""
    lead = lambda match: match["code"] or f"{match['open']}{to(match['to'])})"
    return LINK.sub(lead, PICTURE_ELSEWHERE.sub(r"\1", text))


def output_linked(page: str, to: Where) -> str:
    """Return an output's HTML with its links led elsewhere; scripts stay as they are."""
    lead = lambda match: match[1] or f'href="{html.escape(to(html.unescape(match[2])))}"'
    return re.sub(r'(<script.*?</script>)|(?<=<a )href="([^"]*)"', lead, page, flags=re.DOTALL)


def notebook(path: Path, to: Where, out: Where | None = None) -> nbformat.NotebookNode:
    """Return a recorded notebook with its links led elsewhere and its quiz alive.

    Args:
        path: the notebook.
        to: where its links lead.
        out: where those of its outputs lead; default: as ``to``.
    """
    ready = notebooks.read(path)
    for cell in ready.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source, to)
            continue
        if asked := "quiz" in notebooks.tags(cell) and QUIZ.search(cell.source):
            from pefthelpers import quiz

            shown = {"text/html": quiz.html(asked[1])}
            cell.outputs = [nbformat.v4.new_output("display_data", shown)]
        for output in cell.get("outputs", []):
            for kind in [each for each in output.get("data", {}) if "pefthelpers" in each]:
                del output.data[kind]  # for the runner; its text stands beside it
            if "text/html" in output.get("data", {}):
                output.data["text/html"] = output_linked(output.data["text/html"], out or to)
    return ready


def named(page: str) -> str:
    """Return HTML with Jupyter's anchor at each heading, as links in a notebook write it."""
    anchor = lambda title: re.sub("<[^>]+>", "", title).replace(" ", "-").replace('"', "&quot;")
    name = lambda match: f'<{match[1]} id="{anchor(match[2])}">{match[2]}</{match[1]}>'
    return re.sub(r"<(h[1-6])>(.*?)</\1>", name, page)


def convert(ready: nbformat.NotebookNode, template: str, **resources: object) -> str:
    """Return a notebook as a page of one of our templates, by nbconvert."""
    from nbconvert import HTMLExporter, SlidesExporter
    from pygments.formatters import HtmlFormatter

    installed("a11y_pygments")
    light, dark = (HtmlFormatter(style=f"a11y-high-contrast-{name}") for name in ("light", "dark"))
    colours = {
        "light": light.get_style_defs(".highlight"),
        "dark": dark.get_style_defs(".highlight"),
    }
    kind = SlidesExporter if template == "deck" else HTMLExporter
    exporter = kind(
        template_name=template,
        extra_template_basedirs=[str(TEMPLATES)],
        exclude_anchor_links=True,
        filters={"named": named},
    )
    title = re.search(r"^# (.+)", ready.cells[0].source, re.MULTILINE)
    ready.metadata.title = title[1] if title else "Notebook"
    return exporter.from_notebook_node(ready, {"colours": colours, **resources})[0]
