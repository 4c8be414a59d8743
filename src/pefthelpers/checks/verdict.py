"""What an exercise check says: never an exception, always a next step."""

import copy
import decimal
import html
import math
import numbers
import random
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from types import CodeType

import torch
import yaml

SAYS = yaml.safe_load(Path(__file__).with_name("exercises.yaml").read_text(encoding="utf-8"))
MARKS = {"not attempted": "○", "correct": "✓", "not yet": "✗"}
COLOURS = {"not attempted": "#56606b", "correct": "#00664f", "not yet": "#a34700"}


@dataclass(frozen=True)
class Verdict:
    """The outcome of an exercise.

    Attributes:
        status: ``not attempted``, ``correct`` or ``not yet``.
        message: why, and what to look at next.
        mistakes: the name in ``exercises.yaml`` of each that fits, and what it says.
    """

    status: str
    message: str
    mistakes: tuple[tuple[str, str], ...] = ()

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
        said = attempt(error.__str__, otherwise="no message")[:300]
        return Verdict("not yet", f"Your function raised {type(error).__name__}: {said}")
    return NOT_ATTEMPTED if result is ... or result is None else result


def tried(exercise: str, function: object, /, **given: object) -> Verdict:
    """Judge a function on each of its exercise's cases; the mistake that explains all speaks.

    Args:
        exercise: its name in ``exercises.yaml``. Each of its cases names the arguments, in order.
        function: what the learner handed in.
        **given: for the formulas, beside the arguments of the case.
    """
    if not callable(function):
        return call(function)
    draws, found = torch.Generator().manual_seed(0), []
    randn = lambda *shape: torch.randn(*shape, generator=draws)
    given = {"randn": randn, "draw": random.Random(0), **given}
    for case in computed({"cases": SAYS[exercise]["cases"]}, given)["cases"]:
        arguments = copy.deepcopy(case)
        result = call(function, *arguments.values())
        kept = "changed" not in SAYS[exercise] or same([*arguments.values()], [*case.values()])
        found.append(judge(exercise, result, kept=kept, **{**given, **case}))
        if [*dict(found[-1].mistakes)] in (["else"], ["no number"]):  # no other case explains it
            return found[-1]
    missed = [verdict for verdict in found if verdict.status != "correct"]
    if NOT_ATTEMPTED in missed and len({*found}) > 1:
        return Verdict("not yet", "For some inputs your function returns nothing.")
    fits = [dict(verdict.mistakes) for verdict in missed if verdict.mistakes]
    for mistake in fits[0] if fits else ():
        if all(mistake in each for each in fits):  # it explains all that is wrong
            return Verdict("not yet", fits[0][mistake], ((mistake, fits[0][mistake]),))
    return missed[-1] if missed else found[0]


def check(name: str) -> Callable[..., Verdict]:
    """Return the check of an exercise that needs no more than ``exercises.yaml``: a module's ``__getattr__``.

    Raises:
        AttributeError: there is no exercise of this name.
    """
    if name not in SAYS:
        raise AttributeError(f"there is no exercise {name!r}")
    return partial(tried if "cases" in SAYS[name] else judge, name)


def judge(
    exercise: str, answer: object, /, *, right: object = None, kept: bool = True, **given: object
) -> Verdict:
    """Compare an answer with the right one, then with each known mistake; the first match speaks.

    Args:
        exercise: its name in ``exercises.yaml``, where the messages stand, and formulas: of what is
            right, and of mistakes. A mistake without a formula is itself the answer, a word.
        answer: what the learner handed in, or what ``call`` returned.
        right: a word, a number, a tensor, a list of these, or a function that tells; None where
            ``exercises.yaml`` has its formula.
        kept: whether a function left its arguments as they were.
        **given: for the formulas, and the places in the messages.
    """
    if isinstance(answer, Verdict):
        return answer
    if answer is ... or answer is None:
        return NOT_ATTEMPTED
    says, kind, answer = SAYS[exercise], type(answer).__name__, plain(answer)
    values = {"right": right, "changed": lambda answer: not kept}
    values |= computed(says.get("values", {}), given)
    right, tolerance = values["right"], says.get("tolerance", 0.0)
    given |= values | {"shape": shape_of(answer), "type": kind}
    given["length"] = attempt(lambda: len(answer), otherwise=kind)
    if kept and same(answer, right, tolerance):
        return Verdict("correct", says["correct"].format(**given))
    looks = {"fraction": lambda answer: isinstance(answer, float)} | values
    names = (name for name in says if name not in ("values", "cases", "tolerance", "correct"))
    loose = tolerance and max(tolerance, 1e-3)
    fits = [name for name in names if name == "else" or same(answer, looks.get(name, name), loose)]
    told = [(name, says[name].format(**given)) for name in fits]
    if len(told) == 1 and isinstance(right, int | float) and not isinstance(answer, int | float):
        told = [("no number", f"The answer is a number, not {kind}.")]
    return Verdict("not yet", told[0][1], tuple(told))


@cache
def parsed(formula: str) -> CodeType:
    """Return a formula, ready to be computed: once for all cases."""
    return compile(formula.strip(), "<formula>", "eval")


def computed(formulas: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """Return formulas' values; each may use what is given, and those before it."""
    names = {"math": math, "statistics": statistics, "torch": torch, **HELP, **given}
    for name, formula in formulas.items():
        names[name] = eval(parsed(str(formula)), names)
    return {name: names[name] for name in formulas}


def plain(answer: object) -> object:
    """Return the int or float for whatever holds one real number, the answer itself otherwise."""
    one = attempt(lambda: answer.item(), otherwise=answer)  # of torch, NumPy, pandas
    if isinstance(one, bool) or not isinstance(one, numbers.Real | decimal.Decimal):
        return one
    return attempt(lambda: int(one) if one == int(one) else float(one), otherwise=math.nan)


def as_tensor(answer: object) -> torch.Tensor:
    """Return float64 numbers of a tensor, an array or nested lists; raise for anything else."""
    if isinstance(answer, list | tuple):
        return torch.stack([as_tensor(each) for each in answer])
    found = torch.as_tensor(answer)
    return torch.stack([]) if found.is_complex() else found.double()  # stack raises


def same(answer: object, value: object, tolerance: float = 0.0) -> bool:
    """Tell whether an answer equals a value, or fulfils it; what cannot be compared does not."""

    def compare() -> bool:
        if isinstance(value, torch.Tensor):  # values count, not the dtype
            found = as_tensor(answer)
            return found.shape == value.shape and found.allclose(value.double(), 1e-4, 1e-5)
        if isinstance(value, list | tuple):
            if isinstance(answer, set | frozenset | dict):
                return False
            pairs = zip(answer, value, strict=True)
            return all(same(one, other, tolerance) for one, other in pairs)
        if isinstance(value, str):
            return answer.strip().casefold() == value.casefold()
        if isinstance(value, numbers.Real):
            found, near = plain(answer), tolerance or 1e-6 * isinstance(value, float)
            return not isinstance(found, bool) and math.isclose(found, value, rel_tol=near)
        return answer is value or value(answer) if callable(value) else answer == value

    return attempt(lambda: bool(compare()), otherwise=False)


def shape_of(answer: object) -> tuple:
    """Return a tensor's shape, () for anything else."""
    return attempt(lambda: tuple(map(int, answer.shape)), otherwise=())


def attempt(compute: Callable[[], object], *, otherwise: object):
    """Return what ``compute`` returns, ``otherwise`` if it fails: an answer may raise anything."""
    try:
        return compute()
    except Exception:  # noqa: BLE001
        return otherwise


HELP = {each.__name__: each for each in (same, shape_of, attempt)}  # for the formulas
