"""The calculator without a kernel: a figure, and a page whose numbers the package worked out."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import peftmemory
from pefthelpers import figures
from pefthelpers.errors import UserError
from pefthelpers.figures.memory import KINDS, stacks
from peftmemory.advice import CARD_OVERHEAD_GIB, EVERYWHERE, PRECISIONS
from peftmemory.errors import EstimateError

MODELS = ("smollm2-135m", "llama-3.2-1b", "llama-3.2-3b", "llama-2-7b", "llama-3.1-8b")
MODELS += ("llama-3.1-70b",)
TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
EIGHT_BIT = {"optimizer": "adamw_8bit"}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "full, mixed precision": ("full", PRECISIONS["mixed"]),
    "full, bf16": ("full", {}),
    "full, bf16, 8-bit AdamW": ("full", EIGHT_BIT),
    "LoRA r=64, all linear": (peftmemory.method("lora", r=64, target_modules="all-linear"), {}),
    "LoRA r=16, all linear": (EVERYWHERE, {}),
    "LoRA r=8, q and v": (peftmemory.method("lora", r=8), {}),
    "prefix, 30 tokens": (peftmemory.method("prefix"), {}),
    "adapters, Houlsby": ("houlsby", {}),
    "QLoRA r=16, all linear": (EVERYWHERE, PRECISIONS["nf4"]),
}
TEMPLATE = Path(__file__).with_name("memory_page.html")


def row(model: str, method: str, tokens: int, checkpointing: bool, loss: str) -> list[int] | str:
    """Return hundredths of a GiB by kind at the worst moment, or the sentence of a refusal."""
    what, options = METHODS[method]
    step = {"optimizer": "adamw_torch_fused", **options, "checkpointing": checkpointing}
    try:
        found = peftmemory.estimate(model, what, batch=1, seq=tokens, loss=loss, **step)
    except (UserError, EstimateError) as error:
        return str(error)
    return [round(100 * found.kinds.get(kind, 0) / peftmemory.GIB) for kind in KINDS]


def numbers() -> dict[str, Any]:
    """Return everything the page needs: choices, colours, and a row for each combination.

    The rows run through model, method, tokens, checkpointing, loss; the last one fastest.
    """
    axes = (MODELS, METHODS, TOKENS, (False, True), ("plain", "chunked"))
    return {
        "models": MODELS,
        "methods": list(METHODS),
        "tokens": TOKENS,
        "cards": peftmemory.CARDS_GIB,
        "overhead": CARD_OVERHEAD_GIB,
        "kinds": [{"colour": colour, "word": word} for colour, word in KINDS.values()],
        "rows": [row(*choice) for choice in product(*axes)],
    }


def page(model: str, card_gib: int) -> str:
    """Return the page: HTML with its script and its numbers, nothing from the network."""
    first = {"model": MODELS.index(model) if model in MODELS else 0, "card": card_gib}
    data = json.dumps({**numbers(), "first": first}, separators=(",", ":"))
    return TEMPLATE.read_text().replace("__DATA__", data.replace("</", "<\\/"))


def show_page(model: str, card_gib: int) -> None:
    """Show the figure and, below it, the page."""
    from IPython.display import HTML, display

    step = {"batch": 1, "seq": 2048, "optimizer": "adamw_torch_fused"}
    rows = {
        label: peftmemory.estimate(model, what, **{**step, **options, "loss": "plain"}).kinds
        for label, (what, options) in METHODS.items()
    }
    alt = (
        f"Peak memory of one step of {model} on 2,048 tokens by method, against cards: "
        + "; ".join(
            f"{label} {sum(kinds.values()) / peftmemory.GIB:.1f} GiB"
            for label, kinds in rows.items()
        )
    )
    title = f"{model}, one sequence of 2,048 tokens, plain loss, no checkpointing"
    cards = {"cards_gib": peftmemory.CARDS_GIB, "chosen_gib": card_gib, "title": title}
    figures.show(stacks(rows, **cards), alt)
    display(HTML(page(model, card_gib)))
