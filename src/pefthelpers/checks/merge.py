"""Checks of the exercises in notebook 03."""

import torch

from pefthelpers.checks.verdict import Verdict, call, judge, same, shape_of


def _random(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def merged_weight(function) -> Verdict:
    """Check ``function(W, A, B, alpha, r)``: the merged weight, W + (alpha / r) B A."""
    w, a, b = _random((4, 6), (2, 6), (4, 2))
    given = w.clone()
    result = call(function, given, a.clone(), b.clone(), 6, 2)
    wrong = {
        "in place": lambda result: not same(given, w),
        "shape": lambda result: not isinstance(result, torch.Tensor) or result.shape != w.shape,
    }
    fits = lambda result: same(given, w) and same(result, w + 3 * b @ a)
    return judge("merged_weight", result, right=fits, wrong=wrong, W=w, A=a, B=b)


def smallest_ratio(answer, *, share: float) -> Verdict:
    """Check the ``||dW|| / ||W||`` from which on a bfloat16 merge adds at most ``share`` of noise."""
    eps = {"eps": torch.finfo(torch.bfloat16).eps, "eps_float16": torch.finfo(torch.float16).eps}
    return judge("smallest_ratio", answer, tolerance=0.03, share=share, **eps)


def route(answer, *, distances: dict[str, float]) -> Verdict:
    """Check which merge reproduces what a 4-bit run trained.

    Args:
        answer: ``dequantised``, ``original`` or ``re-quantised``.
        distances: by the same names, how far each route's logits are from the trained ones.
    """
    numbers = {name.replace("-", ""): value for name, value in distances.items()}
    return judge("route", answer, right="dequantised", **numbers)


def concatenated(function) -> Verdict:
    """Check ``function(A1, B1, A2, B2, w1, w2)``: ``(A, B)`` with B A = w1 B1 A1 + w2 B2 A2."""
    a1, a2, b1, b2 = _random((2, 6), (2, 6), (4, 2), (4, 2))
    w1, w2 = 0.5, 3.0
    one, two = b1 @ a1, b2 @ a2
    made = call(function, a1, b1, a2, b2, w1, w2)
    product = call(lambda: made[1] @ made[0])
    wrong = {
        "shape": lambda pair: shape_of(product) != (4, 6),
        "added": lambda pair: len(pair[0]) == 2,
        "twice": lambda pair: same(product, w1**2 * one + w2**2 * two),
        "unweighted": lambda pair: same(product, one + two),
    }
    right = lambda pair: isinstance(pair, tuple) and same(product, w1 * one + w2 * two)
    return judge("concatenated", made, right=right, wrong=wrong, rank=call(lambda: len(made[0])))


def customers(answer, *, base_bytes: int, adapter_bytes: int, budget_bytes: int) -> Verdict:
    """Check how many adapters fit into a memory budget beside one shared base."""
    sizes = {"base": base_bytes, "adapter": adapter_bytes, "budget": budget_bytes}
    return judge("customers", answer, **sizes)
