"""The memory calculator: controls in a live kernel, a figure and an HTML page elsewhere."""

from typing import Any

import peftmemory
from peftguide.pages.memory_answer import TARGETS, answer
from pefthelpers import session
from peftmemory.advice import PRECISIONS, covered_models
from peftmemory.methods import BY_NAME
from peftmemory.settings import CHOICES

LENGTHS = tuple(2**power for power in range(7, 16))
CARD_NAMES = [(f"{card} GB", card) for card in peftmemory.CARDS_GIB]


def memory_calculator(model: str = "llama-3.1-8b", card_gib: int = 24) -> Any:
    """Return the calculator for a live notebook, or show its figure and HTML page without one.

    Args:
        model: the model shown first.
        card_gib: the card compared with, one of ``peftmemory.CARDS_GIB``.
    """
    if session.in_live_notebook():
        return controls(model, card_gib)
    from peftguide.pages.memory_page import show_page

    return show_page(model, card_gib)


def controls(model: str, card_gib: int) -> Any:
    """Return the controls and their answer as one ipywidgets box."""
    import ipywidgets as widgets

    parts = pickers(widgets, model, card_gib)
    out = widgets.HTML()

    def update(_: Any = None) -> None:
        choices = {name: part.value for name, part in parts.items()}
        parts["rank"].disabled = parts["targets"].disabled = choices["method"] not in (
            "lora",
            "dora",
        )
        parts["virtual_tokens"].disabled = choices["method"] not in ("prefix", "prompt")
        out.value = answer(choices)

    for part in parts.values():
        part.observe(update, names="value")
    update()
    grid = widgets.Layout(grid_template_columns="repeat(3, 300px)", grid_gap="2px 12px")
    return widgets.VBox([widgets.GridBox(list(parts.values()), layout=grid), out])


def pickers(widgets: Any, model: str, card_gib: int) -> dict[str, Any]:
    """Return the controls by the name of what they choose; ``widgets`` is ipywidgets."""
    style = {"style": {"description_width": "96px"}, "layout": widgets.Layout(width="290px")}

    def pick(label: str, options, value=None):
        first = {} if value is None else {"value": value}
        return widgets.Dropdown(description=label, options=options, **first, **style)

    def number(label: str, value: int):
        return widgets.IntText(description=label, value=value, **style)

    length = widgets.SelectionSlider(
        description="length", options=LENGTHS, value=1024, continuous_update=False, **style
    )
    return {
        "model": pick("model", covered_models(), model),
        "method": pick("method", list(BY_NAME), "lora"),
        "card": pick("card", CARD_NAMES, card_gib),
        "rank": number("rank r", 16),
        "targets": pick("targets", list(TARGETS), "all linear"),
        "virtual_tokens": number("virtual tokens", 30),
        "batch": number("batch", 4),
        "seq": length,
        "precision": pick("precision", list(PRECISIONS)),
        "optimizer": pick("optimiser", CHOICES["optimizer"], "adamw_torch_fused"),
        "loss": pick("loss", CHOICES["loss"]),
        "attention": pick("attention", CHOICES["attention"]),
        "checkpointing": widgets.Checkbox(description="checkpointing", value=False, **style),
    }
