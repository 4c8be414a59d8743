"""Checks of the exercises in notebook 04."""

import math

import torch

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet
from peftmemory.configs import ModelConfig


def _near(answer: float, value: float) -> bool:
    return math.isclose(answer, value, rel_tol=0.005)


def cache_mib(answer, *, config: ModelConfig, tokens: int, batch: int) -> Verdict:
    """Check the MiB that a prefix takes in the 16-bit key-value cache of a batch."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    if not isinstance(answer, (int, float)) or answer <= 0:
        return not_yet("The answer is a positive number of MiB.")
    right = batch * tokens * 2 * config.layers * config.kv_dim * 2 / 2**20
    if _near(answer, right):
        return correct("Every row of the batch holds its own copy of the prefix.")
    wrong = {
        "That counts one row; every row of the batch has its own cache.": right / batch,
        "Keys *and* values: twice that.": right / 2,
        "That is float32; the cache here has 2 bytes a number.": right * 2,
        "The query heads share keys and values: count key-value heads.": (
            right * config.q_dim / config.kv_dim
        ),
        "That is one layer; every layer has a cache.": right / config.layers,
        "These are MB of 10⁶ bytes; a MiB has 2²⁰.": right * 2**20 / 1e6,
        "These are bytes: divide by 2²⁰.": right * 2**20,
    }
    for message, value in wrong.items():
        if _near(answer, value):
            return not_yet(message)
    return not_yet("batch · n · 2 · layers · d_kv numbers, 2 bytes each, divided by 2²⁰.")


def without_prefix(function) -> Verdict:
    """Check ``function(out, weights, prefix_v)``: what the head would say without its prefix.

    out: (seq, d), weights: (seq, n + seq) with the prefix in front, prefix_v: (n, d).
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(4, 7, generator=generator).tril(3)
    weights = weights / weights.sum(-1, keepdim=True)
    values = torch.randn(7, 5, generator=generator)
    out, share = weights @ values, weights[:, :3].sum(-1, keepdim=True)
    own = weights[:, 3:] @ values[3:]
    result, verdict = call(function, out, weights, values[:3])
    if verdict:
        return verdict
    if not isinstance(result, torch.Tensor) or result.shape != out.shape:
        shape = tuple(getattr(result, "shape", ()))
        return not_yet(f"The shape is {shape}; it should be that of out, {tuple(out.shape)}.")
    if torch.allclose(result, own / (1 - share), atol=1e-5):
        return correct("Subtract the prefix's part, then let the other weights sum to 1 again.")
    entering = "The prefix's values enter with their weights: weights[:, :n] @ prefix_v."
    wrong = [
        (own, "The remaining weights sum to 1 - λ, not to 1: divide by it."),
        (out / (1 - share), "The prefix's values are still in the sum: subtract them first."),
        (out - values[:3].mean(0), entering),
        (out - values[:3].sum(0), entering),
        (own / share, "You divide by λ, the prefix's share; the words have 1 - λ."),
    ]
    return _diagnosis(result, wrong, "out = weights[:, :n] @ prefix_v + (1 - λ) · answer: solve.")


def _diagnosis(result: torch.Tensor, wrong: list, otherwise: str) -> Verdict:
    """Return the message of the first wrong value that ``result`` equals."""
    messages = [text for value, text in wrong if torch.allclose(result, value, atol=1e-5)]
    return not_yet(messages[0] if messages else otherwise)


def answer_logits(function) -> Verdict:
    """Check ``function(logits, n, prompt, answer)``: the logits that predict the answer's tokens.

    logits: (n + prompt + answer, vocab), from a model with n virtual tokens in its input.
    """
    n, prompt, answer = 3, 4, 2
    logits = torch.arange(n + prompt + answer)[:, None].expand(-1, 5)
    result, verdict = call(function, logits, n, prompt, answer)
    if verdict:
        return verdict
    if not isinstance(result, torch.Tensor) or result.ndim != 2 or len(result) != answer:
        count = len(result) if hasattr(result, "__len__") else type(result).__name__
        return not_yet(f"You return {count} rows; the answer has {answer} tokens, one row each.")
    first = int(result[0, 0])
    if first == n + prompt - 1:
        return correct("Position i predicts token i + 1, and the virtual tokens stand in front.")
    if first == n + prompt:
        return not_yet("One too far: the logits at a token predict the *next* one.")
    if first == prompt - 1:
        return not_yet("You forgot the virtual tokens: their logits stand in front.")
    if first == prompt:
        return not_yet("You forgot the virtual tokens, and that position i predicts token i + 1.")
    return not_yet("The first answer token is predicted at the last token of the prompt.")


def method_for(answer, *, facts: dict[str, float]) -> Verdict:
    """Check which method suits new facts in a new form.

    Args:
        answer: ``prompt``, ``prefix`` or ``lora``.
        facts: by method, the notebook's share of new facts answered exactly.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    if answer not in ("prompt", "prefix", "lora"):
        return not_yet('Answer "prompt", "prefix" or "lora".')
    measured = f"{facts[answer]:.1%} of the new facts"
    if answer == "lora":
        return correct(f"It learned {measured}: what no layer knows, a weight must hold.")
    what = "the form, and little else" if answer == "prefix" else "what the base can already do"
    return not_yet(f"Here it learned {measured}. It brings out {what}.")
