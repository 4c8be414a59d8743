"""Checks of the exercises in notebook 06."""

import torch

from pefthelpers.checks.verdict import Verdict, judge, tried


def bits(function) -> Verdict:
    """Check ``function(block, group)``: bits per weight; ``group`` None: no double quantisation."""
    return tried("bits", function)


def quantise_block(function) -> Verdict:
    """Check ``function(w, levels)``: a block's packed codes, (n / 2,), and its constant."""

    def restored(pair, levels):
        packed = torch.as_tensor(pair[0])
        whole = packed.long()  # beyond a byte a code has no level: raises
        codes = torch.stack([whole >> 4, whole & 15], dim=1).flatten()
        assert not packed.is_floating_point()
        return levels[codes] * torch.as_tensor(pair[1])

    return tried("quantise_block", function, restored=restored)


def weights_gib(answer, *, linear: int, rest: int, bits: float) -> Verdict:
    """Check the size, in GiB, of a model whose linear layers are in 4 bits and whose rest is not.

    Args:
        answer: the learner's figure, in GiB (2**30 bytes).
        linear: weights that are quantised.
        rest: weights that stay in bfloat16.
        bits: per quantised weight.
    """
    return judge("weights_gib", answer, linear=linear, rest=rest, bits=bits)


def input_gradient(function) -> Verdict:
    """Check ``function(g, W)``: what a frozen linear layer hands back to its input."""
    return tried("input_gradient", function)


def adam_bytes(function) -> Verdict:
    """Check ``function(n)``: bytes of 8-bit Adam's states for a tensor of ``n`` parameters."""
    return tried("adam_bytes", function)
