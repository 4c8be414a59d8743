"""Checks of the exercises in notebook 05."""

import torch

from pefthelpers.checks.verdict import Verdict, judge, tried


def bottleneck(function) -> Verdict:
    """Check ``function(x, down, up, f)``: x + up(f(down(x)))."""

    def linear(weight, bias):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, *weight.T.shape)  # draws nothing
        layer.weight.data, layer.bias.data = weight, bias
        return layer

    return tried("bottleneck", function, linear=linear)


def largest_width(answer, *, d: int, layers: int, budget: int) -> Verdict:
    """Check the widest Houlsby bottleneck whose parameters stay within a budget.

    Args:
        answer: the learner's m.
        d: hidden size.
        layers: transformer layers, two adapters in each.
        budget: parameters.
    """
    return judge("largest_width", answer, d=d, layers=layers, budget=budget)


def zero_start(answer) -> Verdict:
    """Check what learns if down and up both start at zero, biases included."""
    return judge("zero_start", answer, right="up's bias")


def copies(answer, *, full_bytes: int, adapter_bytes: int) -> Verdict:
    """Check how many adapters weigh less than one fully fine-tuned copy."""
    return judge("copies", answer, full=full_bytes, adapter=adapter_bytes)


def discordant(function) -> Verdict:
    """Check ``function(a, b)``: how many only a got right, and how many only b."""
    return tried("discordant", function)
