"""Text from the templates beside this file: recipes, answers, pages."""

from functools import cache
from pathlib import Path
from typing import Any


def render(name: str, **values: Any) -> str:
    """Return a template's text; in HTML every value is escaped."""
    return _environment().get_template(f"{name}.jinja").render(values)


@cache
def _environment():
    from jinja2 import Environment, FileSystemLoader

    folder = FileSystemLoader(Path(__file__).with_name("templates"), encoding="utf-8")
    escaped = lambda name: ".html" in (name or "")
    spaces = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    return Environment(loader=folder, autoescape=escaped, **spaces)
