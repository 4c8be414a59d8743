"""Whatever a learner hands in, a check answers with a verdict: no exception, never *correct* by luck."""

import ast
import decimal
import fractions
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pefthelpers.checks import adapters, comparison, lora, memory, merge, prefix, qlora, verdict
from peftmemory import load_config

SIZES = {"base_bytes": 1000, "adapter_bytes": 100, "budget_bytes": 10_000}
ANSWERS = {
    "model_states": lambda a: memory.model_states(a, parameters=10**9),
    "what_helps": lambda a: memory.what_helps(a, peaks_gib={"rank 4": 29.0}, card_gib=23),
    "first_gradient": lora.first_gradient,
    "largest_rank": lambda a: lora.largest_rank(a, shapes=[(192, 512)], budget_bytes=2**16),
    "scale_for_rank": lambda a: lora.scale_for_rank(
        a, measured={"constant": 1, "2r": 8, "sqrt": 2}
    ),
    "smallest_ratio": lambda a: merge.smallest_ratio(a, share=0.01),
    "route": lambda a: merge.route(a, distances={"original": 0.2, "re-quantised": 0.3}),
    "customers": lambda a: merge.customers(a, **SIZES),
    "cache_mib": lambda a: prefix.cache_mib(
        a, config=load_config("llama-3.1-8b"), tokens=100, batch=8
    ),
    "method_for": lambda a: prefix.method_for(a, facts={"prompt": 0, "prefix": 0.02, "lora": 0.99}),
    "largest_width": lambda a: adapters.largest_width(a, d=768, layers=12, budget=1_250_000),
    "zero_start": adapters.zero_start,
    "copies": lambda a: adapters.copies(a, full_bytes=1000, adapter_bytes=9),
    "weights_gib": lambda a: qlora.weights_gib(a, linear=7 * 10**9, rest=10**9, bits=4.127),
    "same_scale": lambda a: qlora.same_scale(a, r=8, article=(64, 16)),
    "half_width": lambda a: comparison.half_width(a, values=[0.79, 0.80, 0.84]),
    "sentence": lambda a: comparison.sentence(a, low=-0.1, high=0.2),
}
FUNCTIONS = {
    "checkpointed": memory.checkpointed,
    "peak": memory.peak,
    "labels": lora.labels,
    "merged_weight": merge.merged_weight,
    "concatenated": merge.concatenated,
    "without_prefix": prefix.without_prefix,
    "answer_logits": prefix.answer_logits,
    "bottleneck": adapters.bottleneck,
    "discordant": adapters.discordant,
    "bits": qlora.bits,
    "unpack": qlora.unpack,
    "input_gradient": qlora.input_gradient,
    "adam_bytes": qlora.adam_bytes,
    "rate": comparison.rate,
    "facts_at": comparison.facts_at,
}


class Hostile:
    """An object that raises whatever is done with it."""

    __hash__ = None
    ndim, shape = 0, 7

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def __len__(self):
        raise RuntimeError("no length")

    def __float__(self):
        raise OverflowError("no number")


ODD = [
    "", "right", b"x", [], [None], {}, {"a": 1}, {1}, (), (1,), ("a", "b"), True, 1j, -1, 10**400,
    float("nan"), float("inf"), -1e300, decimal.Decimal("0.1"), fractions.Fraction(1, 3), object(),
    Hostile(), Hostile, print, np.float32(0.3), np.int64(-7), np.bool_(True), np.array(5.5),
    np.zeros((3, 6)), np.array(["a"]), pd.Series([1.0, 2.0]), pd.DataFrame(), pd.NA,
    torch.tensor(3), torch.tensor([]), torch.tensor(float("nan")), torch.zeros(3, 6),
    torch.zeros(4, 6, dtype=torch.int8), torch.zeros(4, 5, dtype=torch.bool),
    torch.full((3, 6), 1e38), torch.zeros(2, 5, dtype=torch.complex64),
    torch.zeros(4, 6, dtype=torch.bfloat16), torch.zeros(3, 6, device="meta"),
    torch.zeros((), device="meta"), torch.zeros(1, 1, 1, 1), (torch.zeros(2, 6), torch.zeros(4, 2)),
    (torch.zeros(1), "b"), iter([1, 2]), (n for n in range(3)), range(8), range(0),
]  # fmt: skip


def fail(*arguments):
    raise SystemExit("gone")


@pytest.mark.parametrize("name", [*ANSWERS, *FUNCTIONS])
@pytest.mark.filterwarnings("ignore:Casting complex")
def test_any_answer_gets_a_verdict(name):
    check = ANSWERS.get(name) or FUNCTIONS[name]
    for odd in ODD:
        given = odd if name in ANSWERS else lambda *arguments, odd=odd: odd
        assert check(given).status == "not yet", odd
        assert check(odd).status in ("not yet", "not attempted"), odd
    assert check(None).status == check(...).status == "not attempted"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_function_gets_a_verdict(name):
    check = FUNCTIONS[name]
    for stub in (lambda *arguments: None, lambda *arguments: ...):
        assert check(stub).status == "not attempted"
    for odd in (fail, lambda: 1, lambda *a: a, lambda *a: a[0], lambda *a: 1 / 0):
        assert check(odd).status == "not yet"
    assert "raised SystemExit: gone" in check(fail).message
    assert "Hand in the function itself, not int" in check(3).message


@pytest.mark.parametrize("wrap", [np.int64, np.float32, np.array, torch.tensor])
def test_a_scalar_of_another_library_is_a_number(wrap):
    assert ANSWERS["same_scale"](wrap(2)).status == "correct"
    assert "one more in width" in ANSWERS["largest_width"](wrap(33)).message


@pytest.mark.parametrize("exercise", [e for e in verdict.SAYS if "values" in verdict.SAYS[e]])
def test_every_formula_has_a_message_or_is_used_by_another(exercise):
    says = dict(verdict.SAYS[exercise])
    formulas = says.pop("values")
    assert says.keys() >= {"correct", "else"}
    text = " ".join(map(str, [*formulas.values(), *says.values()]))
    for name in formulas.keys() - says.keys() - {"right"}:
        assert re.search(rf"\b{name}\b", text), f"{name} has no message and no use"


@pytest.mark.parametrize("wrap", [np.float32, np.float64, np.array, torch.tensor])
def test_a_scalar_with_a_fraction_is_a_number_too(wrap):
    assert "2 degrees of freedom" in ANSWERS["half_width"](wrap(0.0299)).message
    assert "whole number" in ANSWERS["largest_width"](wrap(33.4)).message


def test_a_right_tensor_of_another_dtype_is_right():
    assert qlora.input_gradient(lambda g, w: g.double() @ w.double()).status == "correct"


def test_what_a_learner_changes_is_not_changed_for_the_next_try():
    comparison.rate(lambda runs, tie: runs.clear())
    near = lambda runs, tie: max(r["validation"] for r in runs if r["seed"] == 0) - tie
    right = lambda runs, tie: min(
        r["learning_rate"] for r in runs if r["seed"] == 0 and r["validation"] >= near(runs, tie)
    )
    assert comparison.rate(right).status == "correct"


def test_every_value_of_a_mistake_has_its_message():
    for module in (adapters, comparison, lora, memory, merge, prefix, qlora):
        for function in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
            if not isinstance(function, ast.FunctionDef) or function.name not in verdict.SAYS:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and ast.unparse(node).startswith("wrong ="):
                    mistakes = {key.value for key in node.value.keys}
                    assert mistakes <= verdict.SAYS[function.name].keys(), function.name


def test_every_exercise_is_tried_here():
    assert {*ANSWERS, *FUNCTIONS} == verdict.SAYS.keys()
