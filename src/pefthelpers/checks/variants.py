"""Checks of the exercises in notebook 08."""

import torch
from torch import nn

from pefthelpers.checks.verdict import Verdict, tried


def pissa_init(function) -> Verdict:
    """Check ``function(W, r, scale)``: ``(A, B, residual)``, (r, d_in), (d_out, r), (d_out, d_in)."""
    return tried("pissa_init", function)


def dora_forward(function) -> Verdict:
    """Check ``function(x, W, A, B, m, scale)``: DoRA's output, (batch, seq, d_out)."""
    return tried("dora_forward", function)


def plus_groups(function) -> Verdict:
    """Check ``function(named, rate, ratio)``: LoRA+'s groups for a torch optimiser."""

    def parameter(value, shape, trains):
        return nn.Parameter(torch.full(shape, value), requires_grad=trains)

    return tried("plus_groups", function, parameter=parameter)


def flat_scale(function) -> Verdict:
    """Check ``function(alpha, r, optimizer)``: the scale whose first step is the same at every rank."""
    return tried("flat_scale", function)
