"""Checks of the exercises in notebook 07."""

from pefthelpers.checks.verdict import Verdict, judge, tried


def rate(function) -> Verdict:
    """Check ``function(runs, tie)``: the lowest rate within ``tie`` of seed 0's best validation."""
    return tried("rate", function)


def half_width(answer, *, values: list[float]) -> Verdict:
    """Check the half-width of the 95 % t interval of a mean.

    Args:
        answer: the learner's.
        values: one score a seed, three of them.
    """
    return judge("half_width", answer, values=values)


def sentence(answer, *, low: float, high: float) -> Verdict:
    """Check which sentence an interval of the difference A - B allows.

    Args:
        answer: ``"A is better"``, ``"B is better"``, ``"equal"`` or ``"not told apart"``.
        low: the interval's lower end.
        high: its upper end.
    """
    return judge("sentence", answer, low=low, high=high)


def facts_at(function) -> Verdict:
    """Check ``function(path, target)``: the facts where the line between two points passes it."""
    return tried("facts_at", function)
