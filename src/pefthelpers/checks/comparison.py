"""Checks of the exercises in notebook 07."""

import copy

from pefthelpers.checks.verdict import Verdict, call, judge

RUNS = [
    {"learning_rate": 1e-3, "seed": 0, "validation": 0.90, "test": 0.97},
    {"learning_rate": 3e-3, "seed": 0, "validation": 0.95, "test": 0.93},
    {"learning_rate": 1e-2, "seed": 0, "validation": 0.96, "test": 0.98},
    {"learning_rate": 3e-2, "seed": 1, "validation": 0.99, "test": 0.99},
]


def rate(function) -> Verdict:
    """Check ``function(runs, tie)``: the lowest rate within ``tie`` of seed 0's best validation."""
    swapped, tie = [run | {"test": 1 - run["test"]} for run in RUNS], 0.02
    wrong = {"by test": lambda rate: rate == 1e-2 and call(function, swapped, tie) != rate}
    return judge("rate", call(function, copy.deepcopy(RUNS), tie), right=3e-3, wrong=wrong)


def half_width(answer, *, values: list[float]) -> Verdict:
    """Check the half-width of the 95 % t interval of a mean.

    Args:
        answer: the learner's.
        values: one score a seed, three of them.
    """
    return judge("half_width", answer, tolerance=0.01, values=values)


def sentence(answer, *, low: float, high: float) -> Verdict:
    """Check which sentence an interval of the difference A - B allows.

    Args:
        answer: ``"A is better"``, ``"B is better"``, ``"equal"`` or ``"not told apart"``.
        low: the interval's lower end.
        high: its upper end.
    """
    right = "not told apart" if low <= 0 <= high else "A is better" if low > 0 else "B is better"
    right = "equal" if max(abs(low), abs(high)) < 0.02 else right  # notebook 07's margin
    return judge("sentence", answer, right=right, low=low, high=high)


def facts_at(function) -> Verdict:
    """Check ``function(path, target)``: the facts where the line between two points passes it."""
    path = [(0.0, 1.0), (0.2, 0.9), (0.6, 0.5), (1.0, 0.1)]
    return judge("facts_at", call(function, path, 0.5), right=0.6, tolerance=1e-6)
