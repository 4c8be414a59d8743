"""The ungraded questions at a notebook's end, as data in ``quizzes/``; jupyterquiz asks them where scripts run."""

import re
from pathlib import Path

import jupyterquiz
import yaml
from IPython.display import HTML
from jinja2 import Template

from pefthelpers.errors import UserError
from pefthelpers.results import look_up

FOLDER = Path(__file__).with_name("quizzes")
SCRIPTS = ("helpers", "multiple_choice", "show_questions")  # of jupyterquiz, those that are needed


def load(number: str) -> list[dict]:
    """Return a notebook's questions: ``ask``, and ``options`` with ``say``, ``why`` and, one of them, ``right``.

    Raises:
        UserError: there is no quiz of this number, or one of its questions has another form.
    """
    value = lambda match: format(look_up(match[1]), match[2] or "")
    try:
        text = (FOLDER / f"{number}.yaml").read_text(encoding="utf-8")
        quiz = yaml.safe_load(re.sub(r"\{([^{}:]+)(?::([^{}]*))?\}", value, text))
        for options in [each["options"] for each in quiz if each["ask"]]:
            if [o.get("right") for o in options if o["say"] and o["why"]].count(True) != 1:
                raise ValueError(f"not one right option among {[o['say'] for o in options]}")
    except (OSError, yaml.YAMLError, TypeError, LookupError, ValueError) as error:
        raise UserError(f"There is no quiz {number!r} that can be read: {error}") from error
    return quiz


def html(number: str) -> str:
    """Return a quiz as HTML that needs no network: alive where scripts run, else a list with folded answers."""
    text = [Path(jupyterquiz.__file__).with_name("js") / f"{name}.js" for name in SCRIPTS]
    lines = [line.strip() for file in text for line in file.read_text("utf-8").splitlines()]
    script = "\n".join(line for line in lines if line and not line.startswith("//"))
    page = (FOLDER / "quiz.html.jinja").read_text("utf-8")
    words = {"number": number, "questions": load(number), "script": script}
    return Template(page, autoescape=True, trim_blocks=True).render(words)


def show(number: str) -> HTML:
    """Return a quiz as the last value of a notebook's cell."""
    return HTML(html(number))
