"""Checks of the exercises in notebook 07."""

import math

from pefthelpers.checks.verdict import NOT_ATTEMPTED, Verdict, call, correct, is_missing, not_yet

RUNS = [
    {"learning_rate": 1e-3, "seed": 0, "validation": 0.90, "test": 0.97},
    {"learning_rate": 3e-3, "seed": 0, "validation": 0.95, "test": 0.93},
    {"learning_rate": 1e-2, "seed": 0, "validation": 0.94, "test": 0.98},
    {"learning_rate": 1e-2, "seed": 1, "validation": 0.99, "test": 0.99},
]


def rate(function) -> Verdict:
    """Check ``function(runs)``: the learning rate with the best validation among the runs of seed 0."""
    result, verdict = call(function, RUNS)
    if verdict:
        return verdict
    if result == 3e-3:
        return correct("And no test score was looked at.")
    if result == 1e-3:
        return not_yet("That rate has the worst validation: take the maximum, not the minimum.")
    if result == 1e-2 and _reads_test(function):
        return not_yet("You chose by the test score: whatever it says now is no test any more.")
    if result == 1e-2:
        return not_yet("Seed 1 ran at one rate only: compare the rates on the seed that ran all.")
    return not_yet("Return a learning rate: the value of one of the runs.")


def _reads_test(function) -> bool:
    """Tell whether the answer changes with the test scores alone."""
    swapped = [run | {"test": 1 - run["test"]} for run in RUNS]
    return call(function, swapped)[0] != call(function, RUNS)[0]


def half_width(answer, *, values: list[float]) -> Verdict:
    """Check the half-width of the 95 % t interval of a mean.

    Args:
        answer: the learner's.
        values: one score a seed, three of them.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    if not isinstance(answer, (int, float)):
        return not_yet("The answer is one number: half of the interval's width.")
    n, mean = len(values), sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    sd = math.sqrt(squares / (n - 1))
    near = lambda value: math.isclose(answer, value, rel_tol=0.01)
    if near(4.303 * sd / math.sqrt(n)):
        return correct("Three seeds are few, and the factor 4.303 says so: at 30 it is 2.045.")
    wrong = {
        "That is the standard deviation: the spread of runs, not the doubt about their mean.": sd,
        "That is the standard error: multiply by Student's t, here 4.303.": sd / math.sqrt(n),
        "1.96 is for many runs: with three, t has 2 degrees of freedom, 4.303.": (
            1.96 * sd / math.sqrt(n)
        ),
        "Divide by the square root of n: a mean of three is steadier than one run.": 4.303 * sd,
        "Divide the squares by n - 1: the mean was computed from the same runs.": (
            4.303 * math.sqrt(squares / n) / math.sqrt(n)
        ),
    }
    return not_yet(next((m for m, v in wrong.items() if near(v)), "t · sd / √n, with t = 4.303."))


def sentence(answer, *, low: float, high: float) -> Verdict:
    """Check which sentence an interval of the difference A - B allows.

    Args:
        answer: ``"A is better"``, ``"B is better"``, ``"equal"`` or ``"not told apart"``.
        low: the interval's lower end.
        high: its upper end.
    """
    if is_missing(answer):
        return NOT_ATTEMPTED
    if low <= 0 <= high:
        right, why = "not told apart", "Zero lies inside: more seeds could show either."
    else:
        right = "A is better" if low > 0 else "B is better"
        why = "Zero lies outside, by seeds that share data and split."
    if answer == right:
        return correct(why)
    diagnoses = {
        "equal": "Absence of evidence: the interval also holds differences that would matter.",
        "A is better": "The mean may be above zero, but zero lies inside the interval.",
        "B is better": "The difference is A - B: look at its sign, and whether zero lies inside.",
        "not told apart": "Zero lies outside of this interval.",
    }
    options = '"A is better", "B is better", "equal" or "not told apart"'
    return not_yet(diagnoses.get(answer, f"Answer {options}."))


def mildest(function) -> Verdict:
    """Check ``function(runs, tie)``: the lowest rate within ``tie`` of the best validation."""
    runs = [
        {"learning_rate": 1e-2, "validation": 0.97},
        {"learning_rate": 3e-3, "validation": 0.98},
        {"learning_rate": 1e-3, "validation": 0.965},
        {"learning_rate": 3e-4, "validation": 0.60},
    ]
    result, verdict = call(function, runs, 0.02)
    if verdict:
        return verdict
    wrong = {
        3e-3: "That is the best rate: a milder one is within the tie.",
        1e-2: "That is the highest rate within the tie, and the one that forgets most.",
        3e-4: "That is the lowest rate of all, far below the best validation.",
    }
    if result == 1e-3:
        return correct(
            "It learns as much, as far as validation can tell, and moves the model less."
        )
    return not_yet(wrong.get(result, "Return a learning rate: the value of one of the runs."))
