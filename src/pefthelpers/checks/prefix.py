"""Checks of the exercises in notebook 04."""

import torch

from pefthelpers.checks.verdict import Verdict, call, judge, same, shape_of
from peftmemory.configs import ModelConfig


def cache_mib(answer, *, config: ModelConfig, tokens: int, batch: int) -> Verdict:
    """Check the MiB that a prefix takes in the 16-bit key-value cache of a batch."""
    given = {"config": config, "tokens": tokens, "batch": batch}
    return judge("cache_mib", answer, tolerance=0.005, **given)


def without_prefix(function) -> Verdict:
    """Check ``function(out, weights, prefix_v)``: what the head would say without its prefix.

    out: (seq, d), weights: (seq, n + seq) with the prefix in front, prefix_v: (n, d).
    """
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(4, 7, generator=generator).tril(3)
    weights = weights / weights.sum(-1, keepdim=True)
    values = torch.randn(7, 5, generator=generator)
    out, virtual = weights @ values, values[:3]
    unweighted = (out - virtual.mean(0), out - virtual.sum(0))
    wrong = {
        "shape": lambda result: shape_of(result) != out.shape,
        "unweighted": lambda result: any(same(result, value) for value in unweighted),
    }
    result = call(function, out.clone(), weights.clone(), virtual.clone())
    given = {"out": out, "weights": weights, "values": values, "n": 3}
    return judge("without_prefix", result, wrong=wrong, **given)


def answer_logits(function) -> Verdict:
    """Check ``function(logits, n, prompt, answer)``: the logits that predict the answer's tokens.

    logits: (n + prompt + answer, vocab), from a model with n virtual tokens in its input.
    """
    sizes = {"n": 3, "prompt": 4, "answers": 2}
    logits = torch.arange(sum(sizes.values()))[:, None].expand(-1, 5)
    wrong = {"rows": lambda result: len(shape_of(result)) != 2 or len(result) != sizes["answers"]}
    result = call(function, logits.clone(), *sizes.values())
    return judge("answer_logits", result, wrong=wrong, logits=logits, **sizes)


def method_for(answer, *, facts: dict[str, float]) -> Verdict:
    """Check which method suits new facts in a new form.

    Args:
        answer: ``prompt``, ``prefix`` or ``lora``.
        facts: by method, the notebook's share of new facts answered exactly.
    """
    return judge("method_for", answer, right="lora", **facts)
