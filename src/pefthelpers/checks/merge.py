"""Checks of the exercises in notebooks 03 and 03b."""

import torch

from pefthelpers.checks.verdict import Verdict, judge, tried
from pefthelpers.checks.verdict import check as __getattr__


def smallest_ratio(answer, *, share: float) -> Verdict:
    """Check the ``||dW|| / ||W||`` from which on a bfloat16 merge adds at most ``share`` of noise."""
    eps = {"eps": torch.finfo(torch.bfloat16).eps, "eps_float16": torch.finfo(torch.float16).eps}
    return judge("smallest_ratio", answer, share=share, **eps)


def route(function, *, distances: dict[str, float]) -> Verdict:
    """Check ``function(W, delta, quantise, allowed)``: the route closest to what a 4-bit run trained.

    Args:
        function: the learner's.
        distances: by route, how far the notebook's own merges are from the trained logits.
    """
    given = {name.replace("-", ""): value for name, value in distances.items()}
    return tried("route", function, **given)


def customers(answer, *, base_bytes: int, adapter_bytes: int, budget_bytes: int) -> Verdict:
    """Check how many adapters fit into a memory budget beside one shared base."""
    sizes = {"base": base_bytes, "adapter": adapter_bytes, "budget": budget_bytes}
    return judge("customers", answer, **sizes)
