"""What the memory calculator answers: choices in, HTML out; no widget, no kernel."""

import html
from typing import Any

import peftmemory
from pefthelpers import figures
from pefthelpers.errors import UserError
from pefthelpers.figures.memory import KINDS, stacks
from peftmemory.advice import PRECISIONS
from peftmemory.errors import EstimateError

TARGETS = {
    "q, v": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
    "all linear": "all-linear",
}
STEP_FIELDS = ("batch", "seq", "optimizer", "checkpointing", "loss", "attention")


def read(choices: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the method and the step that the controls name.

    Raises:
        UserError: a size no method can have.
    """
    name, fields = choices["method"], {}
    if name in ("lora", "dora"):
        fields = {"r": choices["rank"], "target_modules": TARGETS[choices["targets"]]}
    elif name in ("prefix", "prompt"):
        fields = {"num_virtual_tokens": choices["virtual_tokens"]}
    step = {field: choices[field] for field in STEP_FIELDS}
    return peftmemory.method(name, **fields), {**step, **PRECISIONS[choices["precision"]]}


def answer(choices: dict[str, Any]) -> str:
    """Return the answer to the calculator's controls as HTML; a sentence if it has none.

    Args:
        choices: model, method, rank, targets, virtual_tokens, batch, seq, precision, optimizer,
            checkpointing, loss, attention, card.
    """
    try:
        method, step = read(choices)
        found = peftmemory.estimate(choices["model"], method, **step)
        advice = peftmemory.advise(choices["model"], method, card_gib=choices["card"], **step)
        largest = peftmemory.largest_fitting(method, card_gib=choices["card"], **step)
    except (UserError, EstimateError) as error:
        return f'<p class="memory-refusal" role="alert">{html.escape(str(error))}</p>'
    words, cards = described(found.kinds), peftmemory.CARDS_GIB
    bar = stacks({"peak": found.kinds}, cards_gib=cards, chosen_gib=choices["card"])
    largest = f"Largest model here that fits with these settings: {largest or 'none'}."
    return (
        f'<div class="memory-answer" data-peak-gib="{found.peak / peftmemory.GIB:.3f}">'
        f"<p><b>{html.escape(str(advice))}</b><br>{found.trainable:,} trained parameters; worst "
        f"moment: {found.peak_moment}. {largest}</p>{figures.image(bar, words)}<p>{words}.</p></div>"
    )


def described(kinds: dict[str, int]) -> str:
    """Return bytes by kind in words: the alt text of a bar."""
    known = [(KINDS[kind][1], size) for kind, size in kinds.items() if kind in KINDS]
    return ", ".join(f"{word} {size / peftmemory.GIB:.2f} GiB" for word, size in known)
