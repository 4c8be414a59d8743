"""Checks of the exercise in notebook 00."""

from pefthelpers.checks.verdict import Verdict, judge


def first_try(answer) -> Verdict:
    """Check what to try first for each of four wishes: a list of four words."""
    return judge("first_try", answer)
