"""Checks of the exercises in notebook 06."""

import math

import torch

from pefthelpers.checks.verdict import Verdict, attempt, call, call_each, judge, shape_of


def bits(function) -> Verdict:
    """Check ``function(block, group)``: bits per weight; ``group`` None: no double quantisation."""
    cases = [(64, None), (64, 256), (128, 512)]
    bits_of = lambda double, single=lambda b: 32 / b: [
        4 + (single(b) if group is None else double(b, group)) for b, group in cases
    ]
    wrong = {
        "codes": [4, 4, 4],
        "not shared": bits_of(lambda b, group: 8 + 32 / group, lambda b: 32),
        "group alone": bits_of(lambda b, group: 8 / b + 32 / group),
        "32 bits": bits_of(lambda b, group: 32 / b + 32 / (b * group)),
        "no second": bits_of(lambda b, group: 8 / b),
    }
    right = bits_of(lambda b, group: 8 / b + 32 / (b * group))
    return judge("bits", call_each(function, cases), right=right, wrong=wrong, tolerance=1e-6)


def unpack(function) -> Verdict:
    """Check ``function(packed)``: two codes of each byte, the first weight in the high half."""
    packed = torch.tensor([0x1F, 0x80, 0x27], dtype=torch.uint8)
    result = call(function, packed)
    codes = attempt(lambda: torch.flatten(result).tolist(), otherwise=[])
    wrong = {
        "no tensor": lambda result: not isinstance(result, torch.Tensor),
        "swapped": lambda result: codes == [15, 1, 0, 8, 7, 2],
        "grouped": lambda result: codes == [1, 8, 2, 15, 0, 7],
        "count": lambda result: len(codes) != 6,
    }
    right = lambda result: codes == [1, 15, 8, 0, 2, 7]
    return judge("unpack", result, right=right, wrong=wrong, count=len(codes))


def weights_gb(answer, *, linear: int, rest: int, bits: float) -> Verdict:
    """Check the bytes, in GB, of a model whose linear layers are in 4 bits and whose rest is not.

    Args:
        answer: the learner's figure, in GB (1e9 bytes).
        linear: weights that are quantised.
        rest: weights that stay in bfloat16.
        bits: per quantised weight.
    """
    gb = lambda quantised, others: (linear * quantised / 8 + rest * others) / 1e9
    wrong = {
        "everything": gb(bits, bits / 8),
        "flat": gb(4, 0.5),
        "no constants": gb(4, 2),
        "layers": gb(bits, 0),
        "float32": gb(bits, 4),
    }
    near = {"right": gb(bits, 2), "tolerance": 0.002}
    return judge("weights_gb", answer, wrong=wrong, **near, others=gb(0, 2))


def input_gradient(function) -> Verdict:
    """Check ``function(g, W)``: what a frozen linear layer hands back to its input."""
    generator = torch.Generator().manual_seed(0)
    g, w = torch.randn(3, 4, generator=generator), torch.randn(4, 6, generator=generator)
    wrong = {
        "zero": torch.zeros(3, 6),
        "of W": lambda result: shape_of(result) == (4, 6),
        "shape": lambda result: shape_of(result) != (3, 6),
    }
    result = call(function, g.clone(), w.clone())
    return judge("input_gradient", result, right=g @ w, wrong=wrong)


def same_scale(answer, *, r: int, article: tuple[int, int]) -> Verdict:
    """Check which alpha gives rank ``r`` the scale of the article's ``(r, alpha)``."""
    article_r, alpha = article
    wrong = {"alpha": alpha, "2r": 2 * r, "inverse": alpha * article_r / r}
    numbers = {"scale": alpha / article_r, "times": article_r / r}
    return judge("same_scale", answer, right=r * alpha / article_r, wrong=wrong, **numbers)


def adam_bytes(function) -> Verdict:
    """Check ``function(n)``: bytes of 8-bit Adam's states for a tensor of ``n`` parameters."""
    sizes = (65_536, 4_096, 2_048)
    bytes_of = lambda eight, below=4096: [8 * n if n < below else eight(n) for n in sizes]
    constants = lambda n: 4 * math.ceil(n / 256)
    both = lambda n: 2 * n + 2 * constants(n)
    wrong = {
        "all in 8 bits": bytes_of(both, below=0),
        "limit": bytes_of(both, below=4097),
        "no constants": bytes_of(lambda n: 2 * n),
        "one state": bytes_of(lambda n: both(n) / 2),
        "one constant": bytes_of(lambda n: 2 * n + constants(n)),
    }
    results = call_each(function, [(n,) for n in sizes])
    return judge("adam_bytes", results, right=bytes_of(both), wrong=wrong)
