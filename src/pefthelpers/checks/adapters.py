"""Checks of the exercises in notebook 05."""

import copy

import torch

from pefthelpers.checks.verdict import COMMON, Verdict, call, call_each, judge, shape_of


def bottleneck(function) -> Verdict:
    """Check ``function(x, down, up, f)``: x + up(f(down(x)))."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.utils.skip_init  # draws nothing from the notebook's own random numbers
    down, up = linear(torch.nn.Linear, 6, 2), linear(torch.nn.Linear, 2, 6)
    for parameter in (*down.parameters(), *up.parameters()):
        parameter.data.normal_(generator=generator)
    x, f = torch.randn(3, 6, generator=generator), torch.nn.functional.silu
    wrong = {"shape": lambda result: shape_of(result) != x.shape}
    given = {"x": x, "down": down, "up": up, "f": f}
    result = call(function, x.clone(), copy.deepcopy(down), copy.deepcopy(up), f)
    return judge("bottleneck", result, wrong=wrong, **given)


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
    upside_down = (adapter_bytes // full_bytes, adapter_bytes / full_bytes)
    wrong = {"upside down": lambda count: count in upside_down}
    return judge("copies", answer, wrong=wrong, full=full_bytes, adapter=adapter_bytes)


def discordant(function) -> Verdict:
    """Check ``function(a, b)``: how many only a got right, and how many only b."""
    a = torch.tensor([1, 1, 1, 1, 0, 0, 1, 0], dtype=torch.bool)
    b = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0], dtype=torch.bool)
    wrong = {"no pair": lambda results: any(map(COMMON["no pair"], results))}
    return judge("discordant", call_each(function, [(a, b), (b, a)]), wrong=wrong)
