"""What an exercise check says: never an exception, always a next step."""

import html
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml

SAYS = yaml.safe_load(Path(__file__).with_name("exercises.yaml").read_text(encoding="utf-8"))
# Mistakes of several exercises.
COMMON = {
    "fraction": lambda answer: isinstance(answer, float) and not answer.is_integer(),
    "no number": lambda answer: not isinstance(answer, int | float),
    "no pair": lambda answer: not isinstance(answer, tuple) or len(answer) != 2,
    "not positive": lambda answer: not (isinstance(answer, int | float) and answer > 0),
}
MARKS = {"not attempted": "○", "correct": "✓", "not yet": "✗"}
COLOURS = {"not attempted": "#56606b", "correct": "#00664f", "not yet": "#a34700"}


@dataclass(frozen=True)
class Verdict:
    """The outcome of an exercise.

    Attributes:
        status: ``not attempted``, ``correct`` or ``not yet``.
        message: why, and what to look at next.
    """

    status: str
    message: str

    def __repr__(self) -> str:
        """Show the verdict as one line of text."""
        return f"{MARKS[self.status]} {self.status.capitalize()}. {self.message}"

    def _repr_html_(self) -> str:
        colour = COLOURS[self.status]
        return (
            f'<div style="border-left:4px solid {colour};padding:4px 10px">'
            f'<b style="color:{colour}">{MARKS[self.status]} {self.status.capitalize()}.</b> '
            f"{html.escape(self.message)}</div>"
        )


NOT_ATTEMPTED = Verdict("not attempted", "Replace the ... with your answer and run the cell again.")


def call(function: object, *arguments: object) -> object:
    """Return what a learner's function returns, or the verdict if it fails or is still a stub."""
    if function is ... or function is None:
        return NOT_ATTEMPTED
    if not callable(function):
        return Verdict("not yet", f"Hand in the function itself, not {type(function).__name__}.")
    try:
        result = function(*arguments)
        result = list(islice(result, 1000)) if isinstance(result, Iterator) else result
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a learner's code may raise anything
        return Verdict("not yet", f"Your function raised {type(error).__name__}: {error}")
    return NOT_ATTEMPTED if result is ... or result is None else result


def call_each(function: object, cases: Sequence[tuple]) -> object:
    """Return a function's results on several cases, or the first verdict on the way."""
    results = [call(function, *case) for case in cases]
    return next((result for result in results if isinstance(result, Verdict)), results)


def judge(
    exercise: str,
    answer: object,
    *,
    right: object = None,
    wrong: Mapping[str, object] | None = None,
    tolerance: float = 0.0,
    **numbers: object,
) -> Verdict:
    """Compare an answer with the right one, then with each known mistake; the first match speaks.

    Args:
        exercise: its name in ``exercises.yaml``, where the messages stand.
        answer: what the learner handed in, or what ``call`` returned.
        right: a word, a number, a tensor, a list of these, or a function that tells; None where
            ``exercises.yaml`` has its formula.
        wrong: mistake to what such an answer looks like, given as ``right`` is. A mistake that is
            neither here nor among the formulas is one of ``COMMON``, or itself the answer, as in a
            choice of words.
        tolerance: relative, of numbers. Mistakes are recognised within a thousandth at least.
        **numbers: for the formulas, and the places in the messages.
    """
    if isinstance(answer, Verdict):
        return answer
    if answer is ... or answer is None:
        return NOT_ATTEMPTED
    says, kind = SAYS[exercise], type(answer).__name__
    values = {"right": right} | computed(says.get("values", {}), numbers)
    numbers |= values | {"shape": shape_of(answer), "type": kind}
    numbers["length"] = attempt(lambda: len(answer), otherwise=kind)
    if attempt(lambda: answer.ndim == 0, otherwise=False):  # a scalar of NumPy or torch
        answer = attempt(lambda: answer.item(), otherwise=kind)
    if same(answer, values["right"], tolerance):
        return Verdict("correct", says["correct"].format(**numbers))
    loose = tolerance and max(tolerance, 1e-3)
    looks = COMMON | values | (wrong or {})
    mistakes = (name for name in says if name not in ("values", "correct", "else"))
    found = (name for name in mistakes if same(answer, looks.get(name, name), loose))
    return Verdict("not yet", says[next(found, "else")].format(**numbers))


def computed(formulas: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return formulas' values; each may use what is given, and those before it."""
    names = {"math": math, "statistics": statistics, **given}
    for name, formula in formulas.items():
        names[name] = eval(str(formula), names)
    return {name: names[name] for name in formulas}


def same(answer: object, value: object, tolerance: float = 0.0) -> bool:
    """Tell whether an answer equals a value, or fulfils it; what cannot be compared does not."""

    def compare() -> bool:
        if callable(value):
            return value(answer)
        if hasattr(value, "allclose"):  # a tensor; values count, not the dtype
            return answer.shape == value.shape and answer.to(value.dtype).allclose(value, atol=1e-5)
        if isinstance(value, list | tuple):
            if isinstance(value, tuple) and not isinstance(answer, tuple):
                return False
            pairs = zip(answer, value, strict=True)
            return all(same(one, other, tolerance) for one, other in pairs)
        if tolerance and not isinstance(value, str):
            return math.isclose(answer, value, rel_tol=tolerance)
        return answer == value

    return attempt(lambda: bool(compare()), otherwise=False)


def shape_of(answer: object) -> tuple:
    """Return a tensor's shape, () for anything else."""
    return attempt(lambda: tuple(answer.shape), otherwise=())


def attempt(compute: Callable[[], object], *, otherwise: object):
    """Return what ``compute`` returns, ``otherwise`` if it fails: an answer may raise anything."""
    try:
        return compute()
    except Exception:  # noqa: BLE001
        return otherwise
