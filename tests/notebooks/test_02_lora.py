"""Notebook 02: its definitions against the library, its exercises against right and wrong answers."""

import copy
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pefthelpers.checks import lora as check


@pytest.fixture(scope="module")
def notebook(cells):
    opened = cells("02_lora")
    opened.namespace |= {"torch": torch, "nn": nn, "math": math, "copy": copy, "check": check}
    opened.run("define-lora", "define-one-step")
    return opened


@pytest.mark.parametrize(("r", "alpha"), [(1, 1), (4, 8), (16, 4)])
def test_from_scratch_equals_peft(notebook, r, alpha):
    torch.manual_seed(r)
    frozen = nn.Linear(24, 40)
    ours = notebook.namespace["LoRALinear"](copy.deepcopy(frozen), r=r, alpha=alpha)
    theirs = get_peft_model(
        nn.Sequential(copy.deepcopy(frozen)),
        LoraConfig(r=r, lora_alpha=alpha, target_modules=["0"]),
    )
    layer = theirs.base_model.model[0]
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(ours.A)
        layer.lora_B["default"].weight.copy_(ours.B.normal_())
    x, target = torch.randn(3, 5, 24), torch.randn(3, 5, 40)
    one_step = notebook.namespace["one_step"]
    trained = [p for p in theirs.parameters() if p.requires_grad]
    for one, other in zip(
        one_step(ours, [ours.A, ours.B], x, target),
        one_step(theirs, trained, x, target),
        strict=True,
    ):
        assert (one - other).abs().max() <= 1e-6


def test_step_zero_changes_nothing(notebook):
    frozen = nn.Linear(8, 6)
    layer = notebook.namespace["LoRALinear"](frozen, r=2, alpha=4)
    x = torch.randn(4, 8)
    assert torch.equal(layer(x), frozen(x))
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"A", "B"}


SHAPES = [(192, 512), (512, 192)]
MEASURED = {"constant": 1.1, "2r": 8.0, "sqrt": 2.5}
CHECKS = {
    "first_gradient": check.first_gradient,
    "largest_rank": lambda a: check.largest_rank(a, shapes=SHAPES, budget_bytes=2**16),
    "labels": check.labels,
    "scale_for_rank": lambda a: check.scale_for_rank(a, measured=MEASURED),
}


def row(prompt_label, keep_end, pad_label):
    def labels(prompt, answer, length, pad):
        answer = answer if keep_end else [*answer[:-1], -100]
        prompt = prompt if prompt_label else [-100] * len(prompt)
        rest = length - len(prompt) - len(answer)
        return prompt + answer + [pad if pad_label else -100] * rest

    return labels


RIGHT = row(False, True, False)


def filled_in_place(prompt, answer, length, pad):
    answer += [-100] * (length - len(prompt) - len(answer))
    return [-100] * len(prompt) + answer


@pytest.mark.parametrize(
    ("name", "answer", "status", "hint"),
    [
        ("first_gradient", "B", "correct", "dL/dA contains B"),
        ("first_gradient", "A", "not yet", "multiplied by B"),
        ("first_gradient", "both", "not yet", "other factor"),
        ("first_gradient", "neither", "not yet", "both start at zero"),
        ("first_gradient", ..., "not attempted", "Replace"),
        ("largest_rank", 2**16 // (4 * 1408), "correct", "One rank costs"),
        ("largest_rank", 2**16 // 1408, "not yet", "one byte"),
        ("largest_rank", 2**16 // (2 * 1408), "not yet", "bfloat16"),
        ("largest_rank", 2**16 // (4 * 1408) + 1, "not yet", "One too many"),
        ("largest_rank", 11.6, "not yet", "whole number"),
        ("largest_rank", ..., "not attempted", "Replace"),
        ("labels", row(False, True, False), "correct", "the answer and its end"),
        ("labels", row(False, False, False), "not yet", "never learns to stop"),
        ("labels", row(True, True, False), "not yet", "repeating questions"),
        ("labels", row(False, True, True), "not yet", "answering with padding"),
        ("labels", lambda *a: [1], "not yet", "1 and 1 labels for rows of 8 and 6"),
        ("labels", lambda *a: [-100, -100, -100, 8, 9, 2, -100, -100], "not yet", "8 and 8 labels"),
        ("labels", lambda *a: list(map(float, RIGHT(*a))), "not yet", "whole numbers"),
        ("labels", filled_in_place, "not yet", "changed the lists"),
        ("labels", lambda *a: torch.tensor(RIGHT(*a)), "correct", "the answer and its end"),
        ("labels", lambda *a: 5, "not yet", "Mask prompt and padding"),
        ("labels", lambda *a: torch.zeros(()), "not yet", "Mask prompt and padding"),
        ("labels", lambda *a: ..., "not attempted", "Replace"),
        ("scale_for_rank", 16, "correct", "×1.10"),
        ("scale_for_rank", 128, "not yet", "×8.0"),
        ("scale_for_rank", 45, "not yet", "×2.5"),
        ("scale_for_rank", 64, "not yet", "flattest"),
        ("scale_for_rank", ..., "not attempted", "Replace"),
    ],
)
def test_exercise_verdicts(name, answer, status, hint):
    verdict = CHECKS[name](answer)
    assert (verdict.status, hint in verdict.message) == (status, True), verdict


@pytest.mark.parametrize("number", range(1, 5))
def test_folded_solutions_pass_and_stubs_are_told_so(notebook, number):
    import pandas as pd

    notebook.namespace["base"] = nn.ModuleDict({"proj": nn.Linear(192, 512)})
    table = {"alpha = 16": [1.0, 1.0], "alpha = 2 r": [1.0, 8.0], "rsLoRA, alpha = 16": [1.0, 2.5]}
    notebook.namespace["steps"] = pd.DataFrame(table, index=[8, 64])
    assert notebook.run(f"exercise-{number}").status == "not attempted"
    assert notebook.execute(notebook.solution(f"solution-{number}")).status == "correct"


def test_a_verdict_is_readable_as_text_and_as_html():
    verdict = check.first_gradient("A")
    assert repr(verdict).startswith("✗ Not yet. ")
    assert "<b" in verdict._repr_html_() and "Not yet" in verdict._repr_html_()
