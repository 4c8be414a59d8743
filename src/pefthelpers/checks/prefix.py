"""Checks of the exercises in notebook 04."""

from pefthelpers.checks.verdict import Verdict, judge, tried
from peftmemory.configs import ModelConfig


def cache_mib(answer, *, config: ModelConfig, tokens: int, batch: int) -> Verdict:
    """Check the MiB that a prefix takes in the 16-bit key-value cache of a batch."""
    return judge("cache_mib", answer, config=config, tokens=tokens, batch=batch)


def without_prefix(function) -> Verdict:
    """Check ``function(out, weights, prefix_v)``: what the head would say without its prefix.

    out: (seq, d), weights: (seq, n + seq) with the prefix in front, prefix_v: (n, d).
    """
    return tried("without_prefix", function)


def answer_logits(function) -> Verdict:
    """Check ``function(logits, n, prompt, answer)``: the logits that predict the answer's tokens.

    logits: (n + prompt + answer, vocab), from a model with n virtual tokens in its input.
    """
    return tried("answer_logits", function)


def may_look(function) -> Verdict:
    """Check ``function(attention_mask, n)``: who may look at whom behind a prefix, with padding.

    attention_mask: (batch, seq), 0 for padding. The mask: (batch, seq, n + seq), True: may look.
    """
    return tried("may_look", function)
