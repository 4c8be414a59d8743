"""Checks of the exercises in notebook 02."""

from pefthelpers.checks.verdict import Verdict, call, judge, same


def first_gradient(answer) -> Verdict:
    """Check which of A and B has a gradient on the very first step."""
    return judge("first_gradient", answer, right="B")


def largest_rank(answer, *, shapes: list[tuple[int, int]], budget_bytes: int) -> Verdict:
    """Check the largest r whose float32 adapter stays within a budget."""
    per_rank = sum(d_in + d_out for d_in, d_out in shapes)
    return judge("largest_rank", answer, per_rank=per_rank, budget_bytes=budget_bytes)


def labels(function) -> Verdict:
    """Check ``function(prompt, answer, length, pad)``: labels where padding and end are the same id."""
    prompt, pad = [5, 6, 7], 2
    # The answer ends with id 2, which also pads.
    row = call(function, list(prompt), [8, 9, 2], 8, pad)
    wrong = {
        "length": lambda row: len(row) != 8,
        "no end": [-100, -100, -100, 8, 9, -100, -100, -100],
        "prompt": lambda row: same(row[:3], prompt),
        "padding": lambda row: same(row[6:], [pad, pad]),
    }
    return judge("labels", row, right=[-100, -100, -100, 8, 9, 2, -100, -100], wrong=wrong)


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
