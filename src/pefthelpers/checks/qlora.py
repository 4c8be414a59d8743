"""Checks of the exercises in notebook 06."""

import torch

from pefthelpers.checks.verdict import Verdict, attempt, call, call_each, judge, shape_of


def bits(function) -> Verdict:
    """Check ``function(block, group)``: bits per weight; ``group`` None: no double quantisation."""
    cases = [(64, None), (64, 256), (128, 512)]
    return judge("bits", call_each(function, cases), tolerance=1e-6, cases=cases)


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
        "shape": lambda result: result.dim() != 1,
        "float": lambda result: result.is_floating_point(),
    }
    right = lambda result: result.tolist() == [1, 15, 8, 0, 2, 7] and not result.is_floating_point()
    return judge("unpack", result, right=right, wrong=wrong, count=len(codes))


def weights_gib(answer, *, linear: int, rest: int, bits: float) -> Verdict:
    """Check the size, in GiB, of a model whose linear layers are in 4 bits and whose rest is not.

    Args:
        answer: the learner's figure, in GiB (2**30 bytes).
        linear: weights that are quantised.
        rest: weights that stay in bfloat16.
        bits: per quantised weight.
    """
    return judge("weights_gib", answer, tolerance=0.002, linear=linear, rest=rest, bits=bits)


def input_gradient(function) -> Verdict:
    """Check ``function(g, W)``: what a frozen linear layer hands back to its input."""
    generator = torch.Generator().manual_seed(0)
    g, w = torch.randn(3, 4, generator=generator), torch.randn(4, 6, generator=generator)
    wrong = {
        "zero": torch.zeros(3, 6),
        "of W": lambda result: shape_of(result) == (4, 6),
        "shape": lambda result: shape_of(result) != (3, 6),
    }
    return judge("input_gradient", call(function, g.clone(), w.clone()), right=g @ w, wrong=wrong)


def same_scale(answer, *, r: int, article: tuple[int, int]) -> Verdict:
    """Check which alpha gives rank ``r`` the scale of the article's ``(r, alpha)``."""
    return judge("same_scale", answer, r=r, article_r=article[0], article_alpha=article[1])


def adam_bytes(function) -> Verdict:
    """Check ``function(n)``: bytes of 8-bit Adam's states for a tensor of ``n`` parameters."""
    sizes = (65_536, 4_096, 3_840, 2_048)
    return judge("adam_bytes", call_each(function, [(n,) for n in sizes]), sizes=sizes)
