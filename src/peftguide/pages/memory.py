"""The memory calculator: controls in a live kernel, a figure and an HTML page elsewhere."""

import html
from typing import Any

import peftmemory
from peftguide.pages.memory_page import answer, show_page
from pefthelpers import figures, session
from pefthelpers.figures.memory import KINDS, stacks
from peftmemory.advice import PRECISIONS, covered_models
from peftmemory.errors import EstimateError
from peftmemory.methods import METHODS
from peftmemory.settings import CHOICES

TARGETS = {
    "q, v": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
    "all linear": "all-linear",
}
LABELS = {"card_gib": "card, GB", "virtual_tokens": "virtual tokens", "seq": "length"}


def memory_calculator(model: str = "llama-3.1-8b", card_gib: int = 24) -> Any:
    """Return the calculator for a live notebook, or show its figure and HTML page without one.

    Args:
        model: the model shown first.
        card_gib: the card compared with, one of ``peftmemory.CARDS_GIB``.
    """
    if session.in_live_notebook():
        return controls(model, card_gib)
    return show_page(model, card_gib)


def controls(model: str, card_gib: int) -> Any:
    """Return controls with the answer below them, which follows what is chosen."""
    import ipywidgets as widgets
    from IPython.display import HTML, display

    def show(**choices: Any) -> None:
        for name in ("rank", "targets"):
            parts[name].disabled = choices["method"] not in ("lora", "dora")
        parts["virtual_tokens"].disabled = choices["method"] not in ("prefix", "prompt")
        display(HTML(as_html(**choices)))

    parts = pickers(widgets, model, card_gib)
    for name, part in parts.items():
        part.description, part.style.description_width = LABELS.get(name, name), "96px"
    answered = widgets.interactive(show, **parts)
    columns = widgets.Layout(grid_template_columns="repeat(3, 310px)")
    return widgets.VBox([widgets.GridBox(list(parts.values()), layout=columns), answered.out])


def pickers(widgets: Any, model: str, card_gib: int) -> dict[str, Any]:
    """Return a control for each argument of ``as_html``; ``widgets`` is ipywidgets."""
    pick = lambda options, value: widgets.Dropdown(options=list(options), value=value)
    lengths = [2**power for power in range(7, 16)]
    return {
        "model": pick(covered_models(), model),
        "method": pick(METHODS, "lora"),
        "card_gib": pick(peftmemory.CARDS_GIB, card_gib),
        "rank": widgets.IntText(16),
        "targets": pick(TARGETS, "all linear"),
        "virtual_tokens": widgets.IntText(30),
        "batch": widgets.IntText(4),
        "seq": widgets.SelectionSlider(options=lengths, value=1024, continuous_update=False),
        "precision": pick(PRECISIONS, "bf16"),
        "optimizer": pick(CHOICES["optimizer"], "adamw_torch_fused"),
        "loss": pick(CHOICES["loss"], "plain"),
        "attention": pick(CHOICES["attention"], "sdpa"),
        "checkpointing": widgets.Checkbox(False),
    }


def as_html(model, method, card_gib, rank, targets, virtual_tokens, precision, **step: Any) -> str:
    """Return the answer to what the controls say as HTML; a sentence if there is none."""
    options: dict[str, Any] = {}
    if method in ("lora", "dora"):
        options = {"r": rank, "target_modules": TARGETS[targets]}
    elif method in ("prefix", "prompt"):
        options = {"num_virtual_tokens": virtual_tokens}
    step |= PRECISIONS[precision]
    try:
        what = peftmemory.method(method, **options)
        found, [advice] = answer(model, what, (card_gib,), **step)
        largest = peftmemory.largest_fitting(what, card_gib=card_gib, **step) or "none"
    except EstimateError as error:
        return f'<p class="memory-refusal" role="alert">{html.escape(str(error))}</p>'
    sizes = {KINDS[kind][1]: size / peftmemory.GIB for kind, size in found.kinds.items()}
    words = ", ".join(f"{word} {gib:.2f} GiB" for word, gib in sizes.items())
    bar = stacks({"peak": found.kinds}, cards_gib=peftmemory.CARDS_GIB, card_gib=card_gib)
    return (
        f'<div class="memory-answer" data-peak-gib="{found.peak / peftmemory.GIB:.3f}">'
        f"<p><b>{html.escape(str(advice))}</b><br>{found.trainable:,} trained parameters; worst "
        f"moment: {found.peak_moment}. Largest model here that fits with these settings: {largest}."
        f"</p>{figures.image(bar, words)}<p>{words}.</p></div>"
    )
