"""The method chooser: one answer behind the controls of a live kernel and the page without one."""

import html
import json
from collections import defaultdict
from functools import cache
from itertools import count, product
from typing import Any

import peftguide
from peftguide.template import render
from pefthelpers import session
from pefthelpers.errors import UserError
from peftmemory.errors import EstimateError

TASKS = {
    "chat: not tried on the base yet": "chat",
    "elicit: asked with three examples, the base does it": "elicit",
    "learn: it does not (new facts, a new format)": "learn",
    "classify: labels": "classify",
    "summarise": "summarise",
}
START = {"task": "learn", "tasks": 1, "latency": "small", "tooling": "any", "examples": 1000}
# What the page holds the answers to; a live kernel has all models and cards.
ON_PAGE = {
    "model": ("llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b", "roberta-base", "t5-base"),
    "card_gib": (8, 16, 24, 48, 80, None),
    "tasks": (1, 50),
    "examples": (15, 1000),
    "tooling": ("any",),
}


def method_chooser(model: str = "llama-3.2-3b", card_gib: int | None = 24) -> Any:
    """Return the chooser for a live notebook, or show its page without one.

    Args:
        model: the model shown first, one of ``peftguide.model_names()``.
        card_gib: the card shown first, one of ``peftguide.CARDS`` or None.
    """
    from IPython.display import HTML, display

    if session.in_live_notebook():
        return controls(model, card_gib)
    display(HTML(page(model, card_gib)))


def fields() -> dict[str, dict[str, Any]]:
    """Return what can be chosen: a field of ``Requirements`` to its values by their words."""
    return {
        "task": TASKS,
        "model": {name: name for name in peftguide.model_names()},
        "card_gib": {**{f"{card} GB": card for card in peftguide.CARDS}, "no GPU": None},
        "examples": {f"{number:,}": number for number in (15, 50, 1000, 100_000)},
        "tasks": {str(number): number for number in (1, 10, 50, 100)},
        "latency": {"a little more will do": "small", "not more than the base": "merged"},
        "tooling": {"any": "any", "peft alone": "peft", "vLLM or SGLang": "vllm"},
    }


def answer(**asked: Any) -> str:
    """Return the guide's answer as HTML; a sentence if it has none."""
    try:
        return peftguide.choose(**asked)._repr_html_()
    except (UserError, EstimateError) as error:
        return f'<p class="chooser-refusal" role="alert">{html.escape(str(error))}</p>'


def controls(model: str, card_gib: int | None) -> Any:
    """Return the controls and their answer as one ipywidgets box."""
    import ipywidgets as widgets
    from IPython.display import HTML

    chosen, parts = START | {"model": model, "card_gib": card_gib}, {}
    for name, options in fields().items():
        pick = {"options": list(options.items()), "value": chosen[name]}
        parts[name] = widgets.Dropdown(description=name.removesuffix("_gib"), **pick)
    box = widgets.interactive(
        lambda **asked: HTML(answer(**asked)), {"auto_display": True}, **parts
    )
    box.layout, box.out.layout.width = widgets.Layout(flex_flow="row wrap"), "98%"
    return box


def page(model: str, card_gib: int | None) -> str:
    """Return the page: HTML with its script and its answers, nothing from the network."""
    start, first = START | {"model": model, "card_gib": card_gib}, []
    for name, words in numbers()["fields"]:
        values = [fields()[name][word] for word in words]
        first.append(values.index(start[name]) if start[name] in values else 0)
    data = json.dumps(numbers() | {"first": first}, separators=(",", ":"), ensure_ascii=False)
    return render("chooser.html", data=data.replace("</", "<\\/"))


@cache
def numbers() -> dict[str, Any]:
    """Return what the page needs: its controls, and ``answer`` for every combination.

    ``places`` runs through the fields, the last one fastest: each is a place in ``answers``. To say
    a sentence once, an answer is a list of places in ``parts``, the parts of its HTML between
    headings, and a part a list of places in ``lines``.
    """
    shown, places = fields(), []
    for name, values in ON_PAGE.items():
        shown[name] = {word: value for word, value in shown[name].items() if value in values}
    # Values, each kept once: a pool gives a new one the next place.
    answers, parts, lines = (defaultdict(count().__next__) for _ in range(3))
    for values in product(*(options.values() for options in shown.values())):
        text = answer(**dict(zip(shown, values, strict=True)))
        cut = [part.split("\n") for part in text.split("\n<h3>")]
        places.append(answers[tuple(parts[tuple(lines[line] for line in part)] for part in cut)])
    pools = {"answers": list(answers), "parts": list(parts), "lines": list(lines)}
    return {"fields": [[n, list(words)] for n, words in shown.items()], "places": places, **pools}
