"""Checks of the exercises in notebook 07."""

import copy

from pefthelpers.checks.verdict import Verdict, call, judge

RUNS = [
    {"learning_rate": 1e-3, "seed": 0, "validation": 0.90, "test": 0.97},
    {"learning_rate": 3e-3, "seed": 0, "validation": 0.95, "test": 0.93},
    {"learning_rate": 1e-2, "seed": 0, "validation": 0.94, "test": 0.98},
    {"learning_rate": 1e-2, "seed": 1, "validation": 0.99, "test": 0.99},
]


def rate(function) -> Verdict:
    """Check ``function(runs)``: the learning rate with the best validation among the runs of seed 0."""
    swapped = [run | {"test": 1 - run["test"]} for run in RUNS]
    wrong = {"by test": lambda rate: rate == 1e-2 and call(function, swapped) != rate}
    return judge("rate", call(function, copy.deepcopy(RUNS)), right=3e-3, wrong=wrong)


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
    inside = "inside: more seeds could show either."
    where = inside if low <= 0 <= high else "outside, by seeds that share data and split."
    return judge("sentence", answer, right=right, where=where)


def mildest(function) -> Verdict:
    """Check ``function(runs, tie)``: the lowest rate within ``tie`` of the best validation."""
    scores = {1e-2: 0.97, 3e-3: 0.98, 1e-3: 0.965, 3e-4: 0.60}
    runs = [{"learning_rate": rate, "validation": score} for rate, score in scores.items()]
    return judge("mildest", call(function, runs, 0.02), right=1e-3)
