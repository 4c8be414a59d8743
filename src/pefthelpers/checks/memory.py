"""Checks of the exercises in notebook 01."""

import math

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet

GIB = 1024**3


def _is_number(answer) -> bool:
    return isinstance(answer, int | float) and not isinstance(answer, bool)


def model_states(answer, *, parameters: int) -> Verdict:
    """Check the GB (1e9 bytes) of weights, gradients, states under autocast with accumulation."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    near = lambda each: (
        _is_number(answer) and math.isclose(answer, each * parameters / 1e9, rel_tol=0.01)
    )
    if near(18):
        return correct("4 + 4 + 8, and the 2 of autocast's bf16 copies beside old gradients.")
    wrong = {
        16: "That is the end of the backward pass; when is the bf16 copy alive beside gradients?",
        14: "Without accumulation: old gradients are alive during the next forward pass.",
        12: "Weights and states alone: gradients and autocast's copies are missing.",
        8: "That is pure bf16, states included; mixed precision keeps fp32 weights.",
        18e9 / GIB: "That is in GiB (1024³ bytes); the question asks for GB (1e9).",
    }
    for each, message in wrong.items():
        if near(each):
            return not_yet(message)
    return not_yet("Add up bytes per parameter at the fullest moment, times the parameters.")


def checkpointed(function) -> Verdict:
    """Check ``function(h, layers, batch, seq)``: bytes of the layer inputs in bf16."""
    h, layers, batch, seq = 96, 5, 3, 40
    result, verdict = call(function, h, layers, batch, seq)
    if verdict:
        return verdict
    right = 2 * h * layers * batch * seq
    if result == right:
        return correct("One bf16 vector a token and layer; the rest is computed a second time.")
    wrong = {
        right // layers: "Every layer keeps its own input.",
        2 * right: "You count four bytes an element; bf16 has two.",
        right // 2: "You count elements, not bytes.",
        right // batch: "The batch is missing: every sequence has its own activations.",
        right * seq: "Linear in the length: no scores of tokens against tokens are kept.",
    }
    return not_yet(wrong.get(result, "Each layer keeps its input: h elements a token, in bf16."))


def peak(function) -> Verdict:
    """Check ``function(moments)``: the peak of a step from bytes by moment and kind."""
    moments = {
        "forward": {"weights": 10, "activations": 50},
        "backward": {"weights": 10, "activations": 20, "gradients": 10},
        "optimizer": {"weights": 10, "gradients": 10, "temporaries": 35},
    }
    result, verdict = call(function, moments)
    if verdict:
        return verdict
    if result == 60:
        return correct("The largest sum of one moment: kinds that never meet are not added.")
    wrong = {
        105: "You add each kind at its own worst moment: activations and gradients never meet.",
        155: "You add up all moments: a step passes through them one after the other.",
        50: "That is the largest single kind: kinds alive in one moment must be added.",
        "forward": "That is the moment's name; return its bytes.",
    }
    if not isinstance(result, int | float | str):
        return not_yet(f"Return one number of bytes, not {type(result).__name__}.")
    return not_yet(wrong.get(result, "Sum the kinds within each moment, then take the largest."))


def what_helps(answer, *, peaks_gib: dict[str, float], card_gib: float) -> Verdict:
    """Check which single change makes a LoRA step fit.

    Args:
        answer: a key of ``peaks_gib``.
        peaks_gib: change to the peak with that change alone.
        card_gib: what must not be exceeded.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    if answer not in peaks_gib:
        return not_yet(f"Answer one of: {', '.join(peaks_gib)}.")
    if peaks_gib[answer] <= card_gib:
        return correct(f"{peaks_gib[answer]:.1f} GiB: most of the peak was activations.")
    why = {
        "rank 4": "the adapters are a small part of the peak at any of these ranks",
        "8-bit AdamW": "it shrinks the states of what is trained, and little is trained",
        "the chunked loss": "the logits are one part, the layers' activations another",
    }
    reason = why.get(answer, "look at what the peak is made of")
    return not_yet(f"Still {peaks_gib[answer]:.1f} GiB: {reason}.")
