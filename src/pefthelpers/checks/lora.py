"""Checks of the exercises in notebook 02."""

import copy

from pefthelpers.checks.verdict import Verdict, attempt, call_each, judge


def first_gradient(answer) -> Verdict:
    """Check which of A and B has a gradient on the very first step."""
    return judge("first_gradient", answer, right="B")


def largest_rank(answer, *, shapes: list[tuple[int, int]], budget_bytes: int) -> Verdict:
    """Check the largest r whose float32 adapter stays within a budget."""
    per_rank = sum(d_in + d_out for d_in, d_out in shapes)
    return judge("largest_rank", answer, per_rank=per_rank, budget_bytes=budget_bytes)


def labels(function) -> Verdict:
    """Check ``function(prompt, answer, length, pad)`` on two rows in which the end's id also pads."""
    cases = [([5, 6, 7], [8, 9, 2], 8, 2), ([4], [3, 6, 9, 2], 6, 2)]
    given = copy.deepcopy(cases)
    rows = call_each(function, given)
    lengths = attempt(lambda: " and ".join(str(len(row)) for row in rows), otherwise="no")
    return judge("labels", rows, cases=cases, given=given, lengths=lengths)


def scale_for_rank(answer, *, measured: dict[str, float]) -> Verdict:
    """Check which alpha for r = 64 moves the function about as far as r = 8 with alpha = 16.

    Args:
        answer: the learner's alpha.
        measured: by rule (``constant``, ``2r``, ``sqrt``), the notebook's measured ratio of the
            first step's change at r = 64 over that at r = 8.
    """
    wrong = {"sqrt": lambda alpha: 44 <= alpha <= 46}
    numbers = {**measured, "twice": measured["2r"]}
    return judge("scale_for_rank", answer, right=16, wrong=wrong, **numbers)
