"""The method chooser: controls in a live kernel, a page with the same answers elsewhere."""

from typing import Any

import peftguide
from peftguide.pages.chooser_answer import answer
from peftguide.question import LATENCIES, TOOLING
from pefthelpers import session

TASKS = {
    "elicit: the base can do it when asked": "elicit",
    "learn: new facts or a new format": "learn",
    "classify: labels": "classify",
    "summarise": "summarise",
}
SERVED = (1, 10, 100)
CARD_NAMES = [(f"{card} GB", card) for card in peftguide.CARDS] + [("no card", None)]
LATENCY_NAMES = dict(
    zip(("a little more will do", "not more than the base"), LATENCIES, strict=True)
)
TOOLING_NAMES = dict(zip(("any", "peft alone"), TOOLING, strict=True))


def method_chooser(model: str = "llama-3.2-3b", card_gib: int | None = 24) -> Any:
    """Return the chooser for a live notebook, or show its page without one.

    Args:
        model: the model shown first, one of ``peftguide.model_names()``.
        card_gib: the card shown first, one of ``peftguide.CARDS`` or None.
    """
    if session.in_live_notebook():
        return controls(model, card_gib)
    from peftguide.pages.chooser_page import show_page

    return show_page(model, card_gib)


def controls(model: str, card_gib: int | None) -> Any:
    """Return the controls and their answer as one ipywidgets box."""
    import ipywidgets as widgets

    parts = pickers(widgets, model, card_gib)
    out = widgets.HTML(layout=widgets.Layout(width="98%"))

    def update(_: Any = None) -> None:
        out.value = answer({name: part.value for name, part in parts.items()})

    for part in parts.values():
        part.observe(update, names="value")
    update()
    wrap = widgets.Layout(display="flex", flex_flow="row wrap", width="100%")
    return widgets.VBox([widgets.Box(list(parts.values()), layout=wrap), out])


def pickers(widgets: Any, model: str, card_gib: int | None) -> dict[str, Any]:
    """Return the controls by the field they choose; ``widgets`` is ipywidgets."""
    style = {"style": {"description_width": "64px"}, "layout": widgets.Layout(width="340px")}

    def pick(label: str, options: Any, value: Any) -> Any:
        return widgets.Dropdown(description=label, options=options, value=value, **style)

    return {
        "task": pick("task", list(TASKS.items()), "learn"),
        "model": pick("model", peftguide.model_names(), model),
        "card_gib": pick("card", CARD_NAMES, card_gib),
        "tasks": pick("tasks", SERVED, 1),
        "latency": pick("latency", list(LATENCY_NAMES.items()), "small"),
        "tooling": pick("tooling", list(TOOLING_NAMES.items()), "any"),
    }
