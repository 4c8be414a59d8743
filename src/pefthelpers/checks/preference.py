"""Checks of the exercises in notebook 09: losses, tried on random numbers."""

from pefthelpers.checks.verdict import Verdict, tried


def with_margin(function) -> Verdict:
    """Check ``function(chosen, rejected, margin)``: Bradley and Terry's loss with a margin."""
    return tried("with_margin", function)


def dpo(function) -> Verdict:
    """Check ``function(chosen, rejected, ref_chosen, ref_rejected, beta)``: DPO's mean loss."""
    return tried("dpo", function)


def leave_one_out(function) -> Verdict:
    """Check ``function(rewards, size)``: each answer against the mean of the others of its group."""
    return tried("leave_one_out", function)


def whole_loss(function) -> Verdict:
    """Check ``function(new, old, reference, advantages, mask, clip, beta)``: GRPO's whole loss."""
    return tried("whole_loss", function)


def gae(function) -> Verdict:
    """Check ``function(rewards, values, decay)``: the advantages of one answer's tokens."""
    return tried("gae", function)
