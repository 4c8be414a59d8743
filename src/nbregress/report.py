"""A run told to others: as one HTML page that needs nothing but itself, and as JUnit XML for CI services."""

import ast
import functools
import re
import textwrap

import jinja2

from nbregress import notebooks
from nbregress.baselines import Change, finite
from nbregress.result import Result
from nbregress.run_store import RunStore
from pefthelpers.record import readable

LONGEST_CALL = 8  # lines; of a longer statement only the line itself is shown
REMOTE_IMAGE = re.compile(r'<img (?=[^>]*src="https?:)(?:[^>]*alt="([^"]*)")?[^>]*>')
NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def duration(seconds: float) -> str:
    """Write seconds as minutes where that reads better."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def number(value: object) -> str:
    """Write a metric's value; a dash for none."""
    return readable(value) if finite(value) else "–" if value is None else str(value)


def places(one: Change) -> dict[str, float]:
    """Return where a chart shows tolerance, reference and run, from 0 to 1; nothing if one is missing."""
    if not (finite(one.before) and finite(one.after)):
        return {}
    reach = one.tolerance or 0
    shown = {"low": one.before - reach, "high": one.before + reach}
    shown |= {"before": one.before, "after": one.after}
    left, right = min(shown.values()), max(shown.values())
    share = lambda value: (value - left) / (right - left) if right > left else 0.5
    return {name: share(value) for name, value in shown.items()}


def failing_call(row: Result) -> str:
    """Return the statement of the cell that a traceback's first arrow points at, empty if none does."""
    found = re.search(r"^-+> *(\d+) (.*)$", row.traceback, re.MULTILINE)
    if not found:
        return ""
    line, text = int(found.group(1)), found.group(2).strip()
    try:
        nodes = [node for node in ast.walk(ast.parse(row.source)) if isinstance(node, ast.stmt)]
    except SyntaxError:
        return text
    spans = [range(node.lineno, node.end_lineno + 1) for node in nodes]
    smallest = min((span for span in spans if line in span), key=len, default=())
    if not 0 < len(smallest) <= LONGEST_CALL:
        return text
    lines = row.source.splitlines()
    return textwrap.dedent("\n".join(lines[number - 1] for number in smallest))


@functools.cache
def exporter():
    """Return what renders notebooks; it compiles its templates once."""
    import nbconvert

    return nbconvert.HTMLExporter(template_name="basic")


def rendered(executed: str) -> str:
    """Return an executed notebook as HTML, its remote images (badges) as words, its code reached by the keyboard."""
    body, _ = exporter().from_notebook_node(notebooks.parse(executed, "The executed notebook"))
    return REMOTE_IMAGE.sub(r"\1", body.replace("<pre>", '<pre tabindex="0">'))


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("nbregress"),
    autoescape=jinja2.select_autoescape(["html.jinja", "xml.jinja"]),
    trim_blocks=True,
)
TEMPLATES.filters |= {call.__name__: call for call in (number, duration, places, failing_call)}


def render(name: str, **given) -> str:
    """Fill in the template of this name."""
    return TEMPLATES.get_template(f"{name}.jinja").render(given).rstrip()


def text(store: RunStore) -> str:
    """Return ``report.html``."""
    from pygments.formatters import HtmlFormatter

    colours = HtmlFormatter().get_style_defs(".highlight")
    executed = {name: rendered(text) for name, text in store.executed.items() if text}
    return render("report.html", store=store, executed=executed, colours=colours)


def junit(store: RunStore) -> str:
    """Return ``junit.xml``: one test case a notebook, without the characters that XML 1.0 does not allow."""
    return NO_XML.sub("", render("junit.xml", store=store))
