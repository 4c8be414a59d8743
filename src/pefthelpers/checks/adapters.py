"""Checks of the exercises in notebook 05."""

import torch

from pefthelpers.checks.verdict import Verdict, judge, tried
from pefthelpers.checks.verdict import check as __getattr__


def bottleneck(function) -> Verdict:
    """Check ``function(x, down, up, f)``: x + up(f(down(x)))."""

    def linear(weight, bias):
        layer = torch.nn.utils.skip_init(torch.nn.Linear, *weight.T.shape)  # draws nothing
        layer.weight.data, layer.bias.data = weight, bias
        return layer

    return tried("bottleneck", function, linear=linear)


def copies(answer, *, full_bytes: int, adapter_bytes: int) -> Verdict:
    """Check how many adapters weigh less than one fully fine-tuned copy."""
    return judge("copies", answer, full=full_bytes, adapter=adapter_bytes)
