"""Whatever a learner hands in, a check answers with a verdict: no exception, never *correct* by luck."""

import collections
import decimal
import fractions
import re

import numpy as np
import pandas as pd
import pytest
import torch

from pefthelpers.checks import comparison, memory, verdict
from support.answers import CHECKS, RIGHT, WRONG

FUNCTIONS = [name for name in CHECKS if "cases" in verdict.SAYS[name]]
TALLY = collections.Counter()
each = lambda table: [(name, i) for name, rows in table.items() for i in range(len(rows))]


def told(found):
    """Return the mistake that a verdict speaks of."""
    return next(iter(dict(found.mistakes)), "")


@pytest.mark.parametrize(("name", "i"), each(RIGHT))
def test_a_right_answer_of_any_type_is_accepted(name, i):
    found = CHECKS[name](RIGHT[name][i])
    assert found.status == "correct", found


@pytest.mark.parametrize(("name", "i"), each(WRONG))
def test_a_plausible_wrong_answer_is_told_its_mistake(name, i):
    answer, mistake = WRONG[name][i]
    found = CHECKS[name](answer)
    assert (found.status, told(found)) == ("not yet", mistake), found


@pytest.mark.parametrize("name", CHECKS)
def test_five_mistakes_of_every_exercise_are_tried_and_two_have_a_diagnosis(name):
    diagnosed = {mistake for _, mistake in WRONG[name]} - {"else", "no number", ""}
    assert len(WRONG[name]) >= 5 and len(diagnosed) >= 2


class Hostile:
    """An object that raises whatever is done with it."""

    __hash__ = None
    ndim, shape = 0, 7

    def fail(self, *arguments):
        raise RuntimeError("no")

    __eq__ = __len__ = __float__ = __int__ = __bool__ = __iter__ = __call__ = __getitem__ = fail
    __str__ = __repr__ = __format__ = __add__ = __lt__ = __array__ = __index__ = item = fail


class HostileError(Exception):
    """An error that cannot be printed."""

    def __str__(self):
        raise RuntimeError("no")


DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
]  # fmt: skip
SHAPES = [(), (0,), (1,), (4, 6), (3, 4, 6)]
cyclic = []
cyclic.append(cyclic)
ODD = [
    "", "right", "\0", "{shape}", b"x", bytearray(b"y"), [], [None], [[]], [1, [2]], {}, {"a": 1},
    {1}, frozenset({2}), (), (1,), ("a", "b"), [..., ...], cyclic, True, False, 1j, -1, 0, -0.0,
    10**400, 2**63, float("nan"), float("inf"), -float("inf"), -1e300, 5e-324, decimal.Decimal("0.1"),
    decimal.Decimal("NaN"), fractions.Fraction(1, 3), object(), Hostile(), Hostile, print,
    np.float32(0.3), np.float16("inf"), np.int64(-7), np.bool_(True), np.complex64(1j), np.str_("B"),
    np.datetime64("2020"), np.array(5.5), np.zeros((3, 6)), np.array(["a"]), np.array([None, 1]),
    np.ma.masked, np.zeros((4, 6))[::-1], pd.Series([1.0, 2.0]), pd.DataFrame(), pd.NA, pd.NaT,
    torch.tensor(float("nan")), torch.full((3, 6), 1e38), torch.zeros(4, 6).to_sparse(),
    torch.zeros(4, 6, requires_grad=True), torch.nn.Linear(2, 2), torch.float32, torch.Size([2]),
    torch.zeros(3, 6, device="meta"), torch.zeros((), device="meta"), slice(3), NotImplemented,
    (torch.zeros(2, 6), torch.zeros(4, 2)), (torch.zeros(1), "b"), (None, None), range(8), range(0),
    *(torch.zeros(shape).to(dtype) for dtype in DTYPES for shape in SHAPES),
]  # fmt: skip


def recursive(*arguments):
    return recursive(*arguments)


def fail(*arguments):
    raise SystemExit("gone")


def unprintable(*arguments):
    raise HostileError


def spoil(*arguments):
    """Change whatever was given, and return it."""
    for each in arguments:
        for change in ("zero_", "clear"):
            if hasattr(each, change):
                getattr(each, change)()
    return arguments[0]


def chatty(*arguments):
    print("computing ...")
    return arguments


class Returns:
    """Returns itself as an answer when called with anything."""

    def __init__(self, *arguments):
        pass


def forever(*arguments):
    while True:
        yield 1


FUNCTION_ODD = [
    fail, recursive, unprintable, spoil, chatty, Returns, forever, lambda: 1, lambda a, b, c, d, e, f, g: 1,
    lambda *a: a, lambda *a: a[0], lambda *a: a[-1], lambda *a: 1 / 0, lambda *a: iter(()),
    lambda *a: (x for x in a), lambda *a: (1 / x for x in (1, 0)), lambda *a: {**dict(enumerate(a))},
    lambda *a: [..., *a], lambda *a: torch.randn(4, 6), lambda *a: print, type, dict, len, int,
]  # fmt: skip


def tries(name):
    """Yield all that is handed in to a check: odd answers, odd functions, functions of odd answers."""
    yield from ODD
    if name in FUNCTIONS:
        yield from FUNCTION_ODD
        for odd in ODD:
            yield lambda *arguments, odd=odd: odd


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CHECKS)
def test_whatever_is_handed_in_gets_a_verdict_and_no_exception(name):
    for given in tries(name):
        found = CHECKS[name](given)
        TALLY[name] += 1
        stub = found is verdict.NOT_ATTEMPTED and (given is print or name in FUNCTIONS)
        assert repr(found).startswith("✗ Not yet. ") or stub, given
        assert found._repr_html_()


def test_the_tally_of_the_fuzz(capsys):
    if {*TALLY} != {*CHECKS}:
        pytest.skip("the fuzz did not run as a whole")
    with capsys.disabled():
        print(
            f"\n{len(TALLY)} checks x {min(TALLY.values())} to {max(TALLY.values())} inputs: "
            f"{sum(TALLY.values())} tried, exceptions 0"
        )


@pytest.mark.parametrize("name", CHECKS)
def test_a_stub_is_not_attempted(name):
    stubs = (lambda *arguments: None, lambda *arguments: ...) if name in FUNCTIONS else ()
    assert {CHECKS[name](stub) for stub in (None, ..., *stubs)} == {verdict.NOT_ATTEMPTED}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_fails_is_told_how(name):
    assert "raised SystemExit: gone" in CHECKS[name](fail).message
    assert "raised RecursionError" in CHECKS[name](recursive).message
    assert CHECKS[name](unprintable).message == "Your function raised HostileError: no message"
    assert "Hand in the function itself, not int" in CHECKS[name](3).message


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_learner_changes_is_not_changed_for_the_next_try(name):
    CHECKS[name](spoil)
    assert CHECKS[name](RIGHT[name][0]).status == "correct"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_constant_is_right(name):
    """Neither is the right result of one case, returned always."""
    seen = []

    def first_result(*arguments):
        seen.append(RIGHT[name][0](*arguments) if not seen else None)
        return seen[0]

    assert CHECKS[name](first_result).status == "not yet"


def test_a_function_that_forgets_one_input_is_told_so():
    found = CHECKS["bits"](lambda block, group: 4 + 32 / block if group is None else None)
    assert found.status == "not yet" and "For some inputs" in found.message


def test_a_check_draws_nothing_from_the_notebooks_random_numbers():
    torch.manual_seed(5)
    expected = torch.randn(3)
    for name in FUNCTIONS:
        torch.manual_seed(5)
        CHECKS[name](lambda *arguments: 0)
        assert torch.equal(torch.randn(3), expected), name


@pytest.mark.parametrize("card", [10, 48, 80])
def test_no_change_is_right_where_none_or_all_of_them_fit(card):
    peaks = {"rank 4": 29.0, "gradient checkpointing": 14.4}
    found = [memory.what_helps(name, peaks_gib=peaks, card_gib=card) for name in peaks]
    assert {each.status for each in found} == {"not yet"}


@pytest.mark.parametrize(
    ("low", "high", "right"),
    [(0.1, 0.2, "A is better"), (-0.2, -0.1, "B is better"), (-0.01, 0.005, "equal"),
     (0.001, 0.005, "equal"), (-0.1, 0.2, "not told apart")],
)  # fmt: skip
def test_only_the_sentence_of_its_interval_is_right(low, high, right):
    words = ("A is better", "B is better", "equal", "not told apart")
    found = {word: comparison.sentence(word, low=low, high=high).status for word in words}
    assert [word for word, status in found.items() if status == "correct"] == [right]


@pytest.mark.parametrize("exercise", verdict.SAYS)
def test_every_formula_has_a_message_or_a_use_and_hides_no_argument(exercise):
    says = dict(verdict.SAYS[exercise])
    formulas, cases = says.pop("values", {}), says.pop("cases", "")
    assert says.keys() >= {"correct", "else"}
    text = " ".join(map(str, [*formulas.values(), *says.values()]))
    for name in formulas.keys() - says.keys() - {"right"}:
        assert re.search(rf"\b{name}\b", text), f"{name} has no message and no use"
    assert not formulas.keys() & {*re.findall(r"(\w+)=", cases)}


def test_every_exercise_is_tried_here():
    assert {*CHECKS} == {*RIGHT} == {*WRONG} == {*verdict.SAYS}
