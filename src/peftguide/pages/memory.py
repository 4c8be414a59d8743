"""The memory calculator: controls in a live kernel; without one a figure and a page of answers."""

import html
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import peftmemory
from pefthelpers import figures, session
from pefthelpers.figures.memory import KINDS, bars, stacks
from peftmemory import CARDS_GIB, GIB
from peftmemory.advice import PRECISIONS, covered_models
from peftmemory.errors import EstimateError
from peftmemory.settings import CHOICES

TARGETS = {
    "q, v": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
    "all linear": "all-linear",
}
LABELS = {"card_gib": "card, GiB", "virtual_tokens": "virtual tokens", "seq": "length"}
MODELS = ("smollm2-135m", "llama-3.2-1b", "llama-3.2-3b", "llama-2-7b", "llama-3.1-8b")
MODELS += ("llama-3.1-70b",)
TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
# Each method with the fields that its step does not share with the others.
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "full, mixed precision": ("full", PRECISIONS["mixed"]),
    "full, bf16": ("full", {}),
    "full, bf16, 8-bit AdamW": ("full", {"optimizer": "adamw_8bit"}),
    "LoRA r=64, all linear": (peftmemory.method("lora", r=64, target_modules="all-linear"), {}),
    "LoRA r=16, all linear": (peftmemory.EVERYWHERE, {}),
    "LoRA r=8, q and v": (peftmemory.method("lora", r=8), {}),
    "prefix, 30 tokens": (peftmemory.method("prefix"), {}),
    "adapters, Houlsby": ("houlsby", {}),
    "QLoRA r=16, all linear": (peftmemory.EVERYWHERE, PRECISIONS["nf4"]),
}
OPEN = re.compile(r"\d+(?= GiB:)|\d+\.\d(?= GiB)")  # the figures in a sentence of advice


def memory_calculator(model: str = "llama-3.1-8b", card_gib: int = 24) -> Any:
    """Return the calculator for a live notebook, or show its figure and HTML page without one.

    Args:
        model: the model shown first.
        card_gib: the card compared with, one of ``peftmemory.CARDS_GIB``.
    """
    if session.in_live_notebook():
        return controls(model, card_gib)
    from IPython.display import HTML, display

    step = lambda label: step_of(label, 2048, False, "plain")
    found = {k: peftmemory.estimate(model, METHODS[k][0], **step(k)) for k in METHODS}
    title = f"{model}, one sequence of 2,048 tokens, plain loss, no checkpointing"
    bars({label: one.kinds for label, one in found.items()}, card_gib=card_gib, title=title)
    display(HTML(page(model, card_gib)))


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
        "method": pick(peftmemory.methods.METHODS, "lora"),
        "card_gib": pick(CARDS_GIB, card_gib),
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
    lora = {"r": rank, "target_modules": TARGETS[targets]}
    virtual = {"num_virtual_tokens": virtual_tokens}
    options = {"lora": lora, "dora": lora, "prefix": virtual, "prompt": virtual}.get(method, {})
    step |= PRECISIONS[precision]
    try:
        what = peftmemory.method(method, **options)
        found = peftmemory.estimate(model, what, **step)
        advice = peftmemory.advise(model, what, card_gib=card_gib, **step)
        largest = peftmemory.largest_fitting(what, card_gib=card_gib, **step) or "none"
    except EstimateError as error:
        return f'<p class="memory-refusal" role="alert">{html.escape(str(error))}</p>'
    words = ", ".join(f"{KINDS[k][1]} {size / GIB:.2f} GiB" for k, size in found.kinds.items())
    bar = stacks({"peak": found.kinds}, cards_gib=CARDS_GIB, card_gib=card_gib)
    return (
        f'<div class="memory-answer" data-peak-gib="{found.peak / GIB:.3f}">'
        f"<p><b>{html.escape(str(advice))}</b><br>{found.trainable:,} trained parameters; worst "
        f"moment: {found.peak_moment}. Largest model here that fits with these settings: {largest}."
        f"</p>{figures.image(bar, words)}<p>{words}.</p></div>"
    )


def step_of(method: str, tokens: int, checkpointing: bool, loss: str) -> dict[str, Any]:
    """Return the fields of the step that the page's controls name."""
    chosen = {"batch": 1, "seq": tokens, "checkpointing": checkpointing, "loss": loss}
    return {"optimizer": "adamw_torch_fused", **METHODS[method][1], **chosen}


def numbers() -> dict[str, Any]:
    """Return everything the page needs: choices, colours, sentences, a row for each combination.

    The rows run through model, method, tokens, checkpointing, loss; the last one fastest. A row
    holds tenths of the peak's GiB; hundredths of a GiB of each kind but the ``resting`` ones, which
    model and method decide; and for each card, up to the first that it fits, which of ``said`` is
    said: two of the ``sentences`` and tenths of the GiB after a change. Figures are ``#`` in a
    sentence: card, peak, changed. The row of a refusal holds only what is said.
    """
    sentences, said, resting = {"": 0}, {}, {}
    index = lambda found, item: found.setdefault(item, len(found))

    def say(verdict: str, remedy: str = "", changed_gib: float = 0) -> int:
        texts = [index(sentences, OPEN.sub("#", each)) for each in (verdict, remedy)]
        return index(said, (*texts, round(10 * changed_gib) if remedy else 0))

    def row(model: Any, method: str, *chosen: Any) -> list[int]:
        try:
            step, what = step_of(method, *chosen), METHODS[method][0]
            found = peftmemory.estimate(model, what, **step)
            advice = [peftmemory.advise(model, what, card_gib=card, **step) for card in CARDS_GIB]
        except EstimateError as error:
            return [say(str(error))]
        sizes = [round(100 * found.kinds.get(kind, 0) / GIB) for kind in KINDS]
        resting[model, method], changing = sizes[:3], sizes[3:]  # rest: weights, optimiser states
        words = [each.word for each in advice]
        until = words.index("fits") + 1 if "fits" in words else None
        cards = [say(each.verdict, each.remedy, each.changed_gib) for each in advice[:until]]
        return [round(10 * found.peak / GIB), *changing, *cards]

    axes = {"models": MODELS, "methods": METHODS, "tokens": TOKENS}
    models, losses = map(peftmemory.load_config, MODELS), ("plain", "chunked")
    rows = [row(*each) for each in product(models, METHODS, TOKENS, (False, True), losses)]
    tables = {"sentences": sentences, "said": said, "resting": resting.values(), "rows": rows}
    kinds = [{"colour": colour, "word": word} for colour, word in KINDS.values()]
    lists = {name: list(values) for name, values in (axes | tables).items()}
    return lists | {"cards": CARDS_GIB, "kinds": kinds}


def page(model: str, card_gib: int) -> str:
    """Return the page: HTML with its script and its numbers, nothing from the network."""
    first = {"model": MODELS.index(model) if model in MODELS else 0, "card": card_gib}
    data = json.dumps({**numbers(), "first": first}, separators=(",", ":")).replace("</", "<\\/")
    return Path(__file__).with_name("memory_page.html").read_text("utf-8").replace("__DATA__", data)
