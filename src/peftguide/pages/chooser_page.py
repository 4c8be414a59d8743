"""The chooser without a kernel: a page that holds the guide's answers to every combination."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import peftguide
from peftguide.pages.chooser import LATENCY_NAMES, TASKS, TOOLING_NAMES
from peftguide.pages.chooser_answer import COPY, STYLE, cells, head
from pefthelpers.errors import UserError
from peftmemory.errors import EstimateError

MODELS = ("llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b", "roberta-base", "t5-base")
CARDS = (8, 16, 24, 48, 80)
SERVED = (1, 10)
TEMPLATE = Path(__file__).with_name("chooser_page.html")


class Pool(dict):
    """Strings, or lists of numbers, each kept once: the page names them by their place."""

    def place(self, value: Any) -> int:
        """Return a value's place, a new one at its first occurrence."""
        return self.setdefault(value, len(self))


def numbers() -> dict[str, Any]:
    """Return everything the page needs.

    ``answers`` runs through the fields in the order of ``fields``, the last one fastest: each is
    a place in ``found``: method, label, places in ``groups`` of why, rows and what was ruled out,
    and the cell's place in ``texts``; a group is a list of places in ``texts``,
    where a row of the table has its cells between bars.
    """
    fields = {
        "task": TASKS,
        "model": dict(zip(MODELS, MODELS, strict=True)),
        "card_gib": {f"{card} GB": card for card in CARDS},
        "tasks": {str(count): count for count in SERVED},
        "latency": LATENCY_NAMES,
        "tooling": TOOLING_NAMES,
    }
    texts, groups, found = Pool(), Pool(), Pool()
    keys = list(fields)
    answers = [
        found.place(packed(dict(zip(keys, values, strict=True)), texts, groups))
        for values in product(*(options.values() for options in fields.values()))
    ]
    named = [[name, list(options.items())] for name, options in fields.items()]
    pools = {"found": list(found), "groups": list(groups), "texts": list(texts)}
    return {"fields": named, "answers": answers, **pools}


def packed(asked: dict[str, Any], texts: Pool, groups: Pool) -> tuple:
    """Return an answer with its texts by their places, or the place of a refusal."""
    try:
        choice = peftguide.choose(**asked)
    except (UserError, EstimateError) as error:
        return (texts.place(str(error)),)
    places = lambda strings: groups.place(tuple(texts.place(text) for text in strings))
    ruled = (f"{name}: {reason}" for name, reason in choice.alternatives.items())
    rows = ("|".join(row) for row in cells(choice))
    shown = places(choice.why), places(rows), places(ruled)
    return choice.method, choice.label, *shown, texts.place(choice.configuration)


def page(model: str, card_gib: int | None) -> str:
    """Return the page: HTML with its script and its answers, nothing from the network."""
    first = {"task": "learn", "model": model, "card_gib": card_gib}
    data = {**numbers(), "first": first, "head": head(), "copy": COPY}
    packed_data = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    text = TEMPLATE.read_text().replace("__STYLE__", STYLE)
    return text.replace("__DATA__", packed_data.replace("</", "<\\/"))


def show_page(model: str, card_gib: int | None) -> None:
    """Show the page."""
    from IPython.display import HTML, display

    display(HTML(page(model, card_gib)))
