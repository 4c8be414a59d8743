"""Checks of the exercises in notebook 03."""

import math

import torch

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


def _near(answer: float, value: float) -> bool:
    return math.isclose(answer, value, rel_tol=0.03)


def merged_weight(function) -> Verdict:
    """Check ``function(W, A, B, alpha, r)``: the merged weight, W + (alpha / r) B A."""
    generator = torch.Generator().manual_seed(0)
    w, a, b = (torch.randn(*shape, generator=generator) for shape in ((4, 6), (2, 6), (4, 2)))
    original = w.clone()
    result, verdict = call(function, w, a, b, 6, 2)
    if verdict:
        return verdict
    if not torch.equal(w, original):
        return not_yet("You changed W in place: the caller cannot switch the adapter off again.")
    wrong = {
        "The correction alone, without W: add W to it.": 3 * b @ a,
        "alpha / r is missing.": w + b @ a,
        "You multiply by alpha alone; Hu et al. (2021) divide it by r.": w + 6 * b @ a,
        "That is unmerging: the sign is wrong.": w - 3 * b @ a,
    }
    if not isinstance(result, torch.Tensor) or result.shape != w.shape:
        shape = tuple(getattr(result, "shape", ()))
        return not_yet(f"The shape is {shape}, W has {tuple(w.shape)}: B @ A is (d_out, d_in).")
    if _close(result, w + 3 * b @ a):
        return correct("One matrix again, of the shape that W had.")
    for message, value in wrong.items():
        if _close(result, value):
            return not_yet(message)
    return not_yet("Right shape, wrong values: W + alpha / r · B @ A.")


def smallest_ratio(answer, *, share: float) -> Verdict:
    """Check the ``||dW|| / ||W||`` from which on a bfloat16 merge loses at most ``share`` of dW."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    eps, half = torch.finfo(torch.bfloat16).eps, torch.finfo(torch.float16).eps
    right = eps / (2 * math.sqrt(7)) / share
    if not isinstance(answer, (int, float)) or answer <= 0:
        return not_yet("The answer is a positive number, ||ΔW|| / ||W||.")
    if _near(answer, right):
        return correct(f"eps / (2 √7) / {share:g}: a smaller correction loses more than that.")
    wrong = {
        "That is float16's eps; bfloat16 keeps three bits fewer.": right * half / eps,
        "You take the spacing eps itself; the average error is eps / (2 √7).": eps / share,
        "Half the spacing is the largest error; the average one is eps / (2 √7).": eps / 2 / share,
        "You multiplied by the share: loss = eps / (2 √7) / ratio, solve for ratio.": (
            right * share**2
        ),
        "That is the loss at ratio 1; divide it by the share you accept.": right * share,
    }
    for message, value in wrong.items():
        if _near(answer, value):
            return not_yet(message)
    return not_yet("Solve predicted_loss(ratio, torch.bfloat16) = share for the ratio.")


def route(answer, *, distances: dict[str, float]) -> Verdict:
    """Check which merge reproduces what a 4-bit run trained.

    Args:
        answer: ``dequantised``, ``original`` or ``re-quantised``.
        distances: by the same names, how far each route's logits are from the trained ones.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    if answer == "dequantised":
        return correct("The adapter met the rounded base in training; it meets the same one here.")
    why = {
        "original": "the better base, but not the one whose rounding errors the adapter has seen",
        "re-quantised": "the sum is rounded to 4 bits once more, and the correction with it",
    }
    if answer not in why:
        return not_yet('Answer "dequantised", "original" or "re-quantised".')
    return not_yet(f"Its logits are {distances[answer]:.2g} away on average: {why[answer]}.")


def concatenated(function) -> Verdict:
    """Check ``function(A1, B1, A2, B2, w1, w2)``: ``(A, B)`` with B A = w1 B1 A1 + w2 B2 A2."""
    generator = torch.Generator().manual_seed(0)
    a1, a2, b1, b2 = (
        torch.randn(*shape, generator=generator) for shape in ((2, 6), (2, 6), (4, 2), (4, 2))
    )
    w1, w2 = 0.5, 3.0
    result, verdict = call(function, a1, b1, a2, b2, w1, w2)
    if verdict:
        return verdict
    if not isinstance(result, tuple) or len(result) != 2:
        return not_yet("Return two matrices: (A, B).")
    product, verdict = call(lambda: result[1] @ result[0])
    if verdict or product.shape != (4, 6):
        return not_yet("B @ A must have the shape of W, (d_out, d_in): return A first, then B.")
    if _close(product, w1 * b1 @ a1 + w2 * b2 @ a2):
        rank = result[0].shape[0]
        return correct(f"Exact, and the ranks add up: 2 + 2 = {rank}.")
    if result[0].shape[0] == 2:
        return not_yet(
            "Adding the factors brings cross terms, B1 A2 and B2 A1: stack them instead."
        )
    if _close(product, w1**2 * b1 @ a1 + w2**2 * b2 @ a2):
        return not_yet("Each weight stands in A and in B, so it counts twice.")
    if _close(product, b1 @ a1 + b2 @ a2):
        return not_yet("The two weights are missing.")
    return not_yet("Stack A1 on A2, put B1 beside B2, and scale one factor of each pair.")


def customers(answer, *, base_bytes: int, adapter_bytes: int, budget_bytes: int) -> Verdict:
    """Check how many adapters fit into a memory budget beside one shared base."""
    if is_missing(answer):
        return NOT_ATTEMPTED
    right = (budget_bytes - base_bytes) // adapter_bytes
    if answer == right:
        merged = budget_bytes // base_bytes
        return correct(f"{right} customers on one base; merged, the same memory serves {merged}.")
    if answer == budget_bytes // adapter_bytes:
        return not_yet("You forgot the base, which must be in memory too, once.")
    if answer == budget_bytes // base_bytes:
        return not_yet("That is how many merged models fit: each of them is a whole model.")
    if answer == budget_bytes // (base_bytes + adapter_bytes):
        return not_yet("You count a base for each customer; unmerged adapters share one.")
    if isinstance(answer, float) and not answer.is_integer():
        return not_yet("A whole number: the last one must fit entirely, so round down.")
    return not_yet("The base once, then as many adapters as fit beside it.")
