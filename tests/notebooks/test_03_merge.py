"""Notebook 03: its from-scratch merge equals peft's, its exercises answer as they should."""

import re

import pytest

from pefthelpers import guards
from pefthelpers.checks import merge as check

EXERCISES = range(1, 6)
DISTANCES = {"dequantised": 1e-6, "original": 0.2, "re-quantised": 0.3}


@pytest.fixture
def book(cells):
    """Return notebook 03 with the names that its cells expect."""
    import pandas as pd
    import torch

    opened = cells("03_merge")
    opened.namespace |= {
        "torch": torch,
        "check": check,
        "by_route": pd.DataFrame({"rms logit distance": DISTANCES}),
        "base": torch.nn.Linear(100, 100),
        "nonna": torch.nn.ModuleDict({"lora_A": torch.nn.Linear(10, 10)}),
    }
    return opened


def defined(book, name):
    """Execute the cell that defines ``name`` and return it."""
    book.run(f"define-{name}")
    return book.namespace[name]


@pytest.fixture
def lora(llama):
    """Return a small Llama with a LoRA whose B is not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        llama(),
        LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", init_lora_weights=False),
    ).eval()
    assert any(p.any() for n, p in model.named_parameters() if "lora_B" in n)
    return model.requires_grad_(False), torch.arange(12).reshape(2, 6)


def layers(model):
    return {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}


def test_merge_by_hand_equals_peft(lora, book):
    model, ids = lora
    merge, before = defined(book, "merge"), model(input_ids=ids).logits
    by_hand = {
        name.removeprefix("base_model.model."): merge(
            m.weight, m.lora_A["default"].weight, m.lora_B["default"].weight, alpha=12, r=4
        )
        for name, m in layers(model).items()
    }
    merged = model.merge_and_unload()
    for name, weight in by_hand.items():
        assert (merged.get_submodule(name).weight - weight).abs().max() <= 1e-6
    assert (merged(input_ids=ids).logits - before).abs().max() <= 1e-5


def test_unmerge_takes_the_correction_out(lora, book):
    model, _ = lora
    merge = defined(book, "merge")
    unmerge = book.namespace["unmerge"]
    for m in layers(model).values():
        a, b = m.lora_A["default"].weight, m.lora_B["default"].weight
        merged = merge(m.weight, a, b, alpha=12, r=4)
        back = unmerge(merged, a, b, alpha=12, r=4)
        assert (back - m.weight).abs().max() <= 1e-6


def test_lost_share_agrees_with_the_guard(lora, book):
    import torch

    model, _ = lora
    lost = defined(book, "lost")
    for m in layers(model.to(torch.bfloat16)).values():
        correction = m.get_delta_weight("default").float()
        assert lost(m.weight, correction, torch.bfloat16) == pytest.approx(
            guards.merge_loss(m), rel=1e-3
        )


def test_predicted_loss_is_what_rounding_random_weights_loses(book):
    import torch

    lost, predicted_loss = defined(book, "lost"), defined(book, "predicted_loss")
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(512, 512, generator=generator)
    correction = torch.randn(512, 8, generator=generator) @ torch.randn(8, 512, generator=generator)
    correction *= 0.05 * weight.norm() / correction.norm()
    for dtype in (torch.float16, torch.bfloat16):
        measured = lost(weight, correction, dtype)
        assert predicted_loss(0.05, dtype) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("number", EXERCISES)
def test_stub_is_not_attempted_and_solution_is_correct(number, book):
    assert book.run(f"exercise-{number}").status == "not attempted"
    verdict = book.execute(book.solution(f"solution-{number}"))
    assert verdict.status == "correct", verdict


@pytest.mark.parametrize("number", EXERCISES)
def test_solution_is_the_stub_filled_in(number, book):
    stub = book.by_id[f"exercise-{number}"].source.strip()
    pattern = re.escape(stub).replace(re.escape("..."), ".+")
    assert re.fullmatch(pattern, book.solution(f"solution-{number}").strip())


def diagnosed(verdict, hint):
    assert verdict.status == "not yet"
    assert hint in verdict.message, verdict


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda W, A, B, alpha, r: W + B @ A, "missing"),
        (lambda W, A, B, alpha, r: W + alpha * B @ A, "alpha alone"),
        (lambda W, A, B, alpha, r: alpha / r * B @ A, "without W"),
        (lambda W, A, B, alpha, r: W - alpha / r * B @ A, "sign"),
        (lambda W, A, B, alpha, r: W.add_(alpha / r * B @ A), "in place"),
        (lambda W, A, B, alpha, r: (B @ A).T, "shape"),
        (lambda W, A, B, alpha, r: W + A @ B, "RuntimeError"),
        (lambda W, A, B, alpha, r: "W + BA", "shape"),
    ],
)
def test_wrong_merges_are_diagnosed(function, hint):
    diagnosed(check.merged_weight(function), hint)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (2**-10 / (2 * 7**0.5) / 0.01, "float16"),
        (2**-7 / 0.01, "spacing"),
        (2**-8 / 0.01, "largest"),
        (2**-7 / (2 * 7**0.5) * 0.01, "multiplied"),
        (2**-7 / (2 * 7**0.5), "ratio 1"),
        (3.0, "Solve"),
        ("small", "positive number"),
    ],
)
def test_wrong_ratios_are_diagnosed(answer, hint):
    diagnosed(check.smallest_ratio(answer, share=0.01), hint)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [("original", "0.2"), ("re-quantised", "0.3"), ("4-bit", "Answer")],
)
def test_wrong_routes_are_diagnosed(answer, hint):
    diagnosed(check.route(answer, distances=DISTANCES), hint)


def test_wrong_combinations_are_diagnosed():
    import torch

    cat = torch.cat
    wrong = {
        "cross terms": lambda A1, B1, A2, B2, w1, w2: (A1 + A2, w1 * B1 + w2 * B2),
        "twice": lambda A1, B1, A2, B2, w1, w2: (
            cat([w1 * A1, w2 * A2]),
            cat([w1 * B1, w2 * B2], 1),
        ),
        "weights are missing": lambda A1, B1, A2, B2, w1, w2: (cat([A1, A2]), cat([B1, B2], 1)),
        "shape of W": lambda A1, B1, A2, B2, w1, w2: (cat([B1, B2], 1), cat([A1, A2])),
        "two matrices": lambda A1, B1, A2, B2, w1, w2: w1 * B1 @ A1 + w2 * B2 @ A2,
    }
    for hint, function in wrong.items():
        diagnosed(check.concatenated(function), hint)


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        (100, "forgot the base"),
        (10, "whole model"),
        (9, "share one"),
        (90.5, "whole number"),
        (42, "base once"),
    ],
)
def test_wrong_counts_are_diagnosed(answer, hint):
    sizes = {"base_bytes": 1000, "adapter_bytes": 100, "budget_bytes": 10_000}
    diagnosed(check.customers(answer, **sizes), hint)
