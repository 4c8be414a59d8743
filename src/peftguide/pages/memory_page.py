"""The calculator without a kernel: a figure, and a page whose answers the package worked out."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import peftmemory
from pefthelpers import figures
from pefthelpers.figures.memory import KINDS, stacks
from peftmemory.advice import PRECISIONS
from peftmemory.errors import EstimateError

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
RESTING = 3  # of the kinds: weights and optimiser states, there at every moment of a step
TEMPLATE = Path(__file__).with_name("memory_page.html")


OPEN = re.compile(r"\d+(?= GB:)|\d+\.\d(?= GiB)")  # the figures in a sentence of advice


def answer(model: str, method: Any, cards_gib: tuple[float, ...], **step: Any):
    """Return a step's estimate and, for each card, the advice.

    Raises:
        EstimateError: something in the question cannot be.
    """
    advise = lambda card: peftmemory.advise(model, method, card_gib=card, **step)
    return peftmemory.estimate(model, method, **step), [advise(card) for card in cards_gib]


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
        return index(said, (*texts, tenths(changed_gib) if remedy else 0))

    def row(model: str, method: str, *chosen: Any) -> list[int]:
        try:
            step = step_of(method, *chosen)
            found, advice = answer(model, METHODS[method][0], peftmemory.CARDS_GIB, **step)
        except EstimateError as error:
            return [say(str(error))]
        sizes = [round(100 * found.kinds.get(kind, 0) / peftmemory.GIB) for kind in KINDS]
        resting[model, method], changing = sizes[:RESTING], sizes[RESTING:]
        until = [each.fits for each in advice].index(True) + 1 if advice[-1].fits else None
        cards = [say(each.verdict, each.remedy, each.changed_gib) for each in advice[:until]]
        return [tenths(found.peak / peftmemory.GIB), *changing, *cards]

    axes = {"models": MODELS, "methods": METHODS, "tokens": TOKENS}
    rows = [row(*each) for each in product(*axes.values(), (False, True), ("plain", "chunked"))]
    tables = {"sentences": sentences, "said": said, "resting": resting.values(), "rows": rows}
    kinds = [{"colour": colour, "word": word} for colour, word in KINDS.values()]
    lists = {name: list(values) for name, values in (axes | tables).items()}
    return {**lists, "cards": peftmemory.CARDS_GIB, "kinds": kinds}


def tenths(gib: float) -> int:
    """Return tenths of a GiB, rounded as a sentence rounds them."""
    return int(f"{gib:.1f}".replace(".", ""))


def page(model: str, card_gib: int) -> str:
    """Return the page: HTML with its script and its numbers, nothing from the network."""
    first = {"model": MODELS.index(model) if model in MODELS else 0, "card": card_gib}
    data = json.dumps({**numbers(), "first": first}, separators=(",", ":"))
    return TEMPLATE.read_text().replace("__DATA__", data.replace("</", "<\\/"))


def show_page(model: str, card_gib: int) -> None:
    """Show the figure and, below it, the page."""
    from IPython.display import HTML, display

    step = lambda label: step_of(label, 2048, False, "plain")
    found = {k: peftmemory.estimate(model, METHODS[k][0], **step(k)) for k in METHODS}
    alt = f"Peak memory of one step of {model} on 2,048 tokens by method, against cards: "
    alt += "; ".join(f"{label} {one.peak / peftmemory.GIB:.1f} GiB" for label, one in found.items())
    title = f"{model}, one sequence of 2,048 tokens, plain loss, no checkpointing"
    cards = {"cards_gib": peftmemory.CARDS_GIB, "card_gib": card_gib}
    figures.show(stacks({k: one.kinds for k, one in found.items()}, **cards, title=title), alt)
    display(HTML(page(model, card_gib)))
