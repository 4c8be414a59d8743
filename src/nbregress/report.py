"""A run as one HTML page that needs nothing but itself."""

import ast
import functools
import re
import textwrap

import jinja2
from markupsafe import Markup, escape

from nbregress import baselines, charts, notebooks
from nbregress.result import Result
from nbregress.run_store import RunStore
from pefthelpers.record import readable


def duration(seconds: float) -> str:
    """Write seconds as minutes where that reads better."""
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def number(value: object) -> str:
    """Write a metric's value; a dash for none."""
    return readable(value) if baselines.finite(value) else "–" if value is None else str(value)


@functools.cache
def pages() -> jinja2.Environment:
    """Return the page templates."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nbregress"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, duration=duration, chart=charts.chart, call=failing_call, breakable=breakable
    )
    return environment


def breakable(name: str) -> Markup:
    """Let a long name be broken after its underscores."""
    return Markup(escape(name).replace("_", Markup("_<wbr>")))


LONGEST_CALL = 8  # lines; of a longer statement only the line itself is shown
REMOTE_IMAGE = re.compile(r'<img [^>]*src="https?:[^>]*>')


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
    around = [node for node in nodes if node.lineno <= line <= node.end_lineno]
    if not around:
        return text
    smallest = min(around, key=lambda node: node.end_lineno - node.lineno)
    lines = row.source.splitlines()[smallest.lineno - 1 : smallest.end_lineno]
    return textwrap.dedent("\n".join(lines)) if len(lines) <= LONGEST_CALL else text


def words_of(image: re.Match) -> str:
    """Return an image's alternative text."""
    found = re.search(r'alt="([^"]*)"', image.group())
    return found.group(1) if found else ""


@functools.cache
def exporter():
    """Return what renders notebooks; it compiles its templates once."""
    import nbconvert

    return nbconvert.HTMLExporter(template_name="basic")


def rendered(executed: str) -> str:
    """Return an executed notebook as HTML, its remote images (badges) as words; empty if there is none."""
    if not executed:
        return ""
    body, _ = exporter().from_notebook_node(notebooks.parse(executed, "The executed notebook"))
    return REMOTE_IMAGE.sub(words_of, body)


def code_colours() -> str:
    """Return the style sheet of highlighted code."""
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter().get_style_defs(".highlight")


def compared(store: RunStore, row: Result) -> list[baselines.Change]:
    """Return a notebook's metrics against its baseline, those beyond their tolerance first."""
    recorded = store.recorded.get(row.notebook) or {"metrics": {}}
    if store.plan.values:  # with parameters of its own, a run is shown and not compared
        recorded = {"metrics": {}}
    found = baselines.compare(recorded["metrics"], row.metrics)
    return sorted(found, key=lambda one: not one.bad)


def text(store: RunStore) -> str:
    """Return ``report.html``."""
    entries = [
        {
            "row": row,
            "recorded": (store.recorded.get(row.notebook) or {}).get("seconds"),
            "metrics": compared(store, row),
            "html": rendered(store.executed.get(row.notebook, "")),
        }
        for row in store.rows
    ]
    return (
        pages()
        .get_template("report.html.jinja")
        .render(
            entries=entries,
            bad=sorted(
                (entry for entry in entries if not entry["row"].good),
                key=lambda entry: ("failed", "drifted", "stopped").index(entry["row"].status),
            ),
            about=store.about(),
            trouble=store.trouble,
            colours=code_colours(),
        )
    )
