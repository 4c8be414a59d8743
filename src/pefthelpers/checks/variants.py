"""Checks of the exercises in notebook 08."""

import torch
from torch import nn

from pefthelpers.checks.verdict import Verdict, tried
from pefthelpers.checks.verdict import check as __getattr__


def plus_groups(function) -> Verdict:
    """Check ``function(named, rate, ratio)``: LoRA+'s groups for a torch optimiser."""

    def parameter(value, shape, trains):
        return nn.Parameter(torch.full(shape, value), requires_grad=trains)

    return tried("plus_groups", function, parameter=parameter)
