"""Notebook 02b: one layer against the library's, and what its text says against the records."""

import copy
import math

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pefthelpers import kitchen, models, results, training
from pefthelpers.checks import lora as check


@pytest.fixture(scope="module")
def notebook(cells):
    opened = cells("02b_lora_in_depth")
    opened.namespace |= {"torch": torch, "nn": nn, "math": math, "copy": copy, "check": check}
    opened.run("define-lora", "define-one-step", "define-rank-for")
    return opened


def test_its_layer_is_that_of_02(notebook, cells):
    assert notebook.by_id["define-lora"].source == cells("02_lora").by_id["define-lora"].source


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


def test_the_folded_solution_passes_and_the_stub_is_told_so(notebook):
    notebook.namespace["base"] = nn.ModuleDict({"proj": nn.Linear(192, 512)})
    assert notebook.run("exercise-1").status == "not attempted"
    found = notebook.execute(notebook.solution("solution-1"))
    assert found.status == "correct", found


@pytest.mark.parametrize("rank", [1, 3])
def test_the_rank_counted_is_that_of_a_product(notebook, rank):
    torch.manual_seed(0)
    matrix = torch.linalg.qr(torch.randn(20, rank)).Q @ torch.linalg.qr(torch.randn(9, rank)).Q.T
    assert notebook.namespace["rank_for"](matrix) == rank  # equal singular values


def test_lora_saves_a_third_of_a_layers_operations_less_its_own(notebook):
    from torch.utils.flop_counter import FlopCounterMode

    d_in, d_out, r = 48, 80, 4
    layer = notebook.namespace["LoRALinear"](nn.Linear(d_in, d_out), r=r, alpha=8)
    values = {"FlopCounterMode": FlopCounterMode, "ours": layer, "d_in": d_in, "d_out": d_out}
    notebook.namespace |= values | {"R": r, "pd": pd, "record": lambda *_, **__: None}
    row = notebook.run("operations").iloc[0]
    assert row["ratio"] == pytest.approx(1)


def test_one_step_of_alpha_is_one_of_the_rate_and_a_training_is_not(notebook):
    base, tokenizer = models.load("decoder")
    notebook.namespace |= {"base": base, "kitchen_tokenizer": tokenizer, "training": training}
    notebook.namespace |= {"elicit": kitchen.elicit(0), "SEED": 0, "LoraConfig": LoraConfig}
    notebook.namespace |= {"get_peft_model": get_peft_model}
    notebook.run("first-step")
    moved = notebook.namespace["moved"]
    assert moved(8, 16, learning_rate=8e-3) == pytest.approx(moved(8, 128), rel=1e-3)
    rows = results.rows("alpha_study").query("rule == 'constant' and r == 8").set_index("seed")
    at = lambda alpha, rate: rows.query(f"alpha == {alpha} and learning_rate == {rate}")
    rate, alpha = at(16, 0.008), at(128, 0.001)
    assert len(rate) == len(alpha) == 3
    assert (rate["test"] > 0.97).all() and (alpha["test"] > 0.97).all()
    assert (rate["general_loss"] > 1.5 * alpha["general_loss"]).all()
    assert (rate["a_moved"] > 3 * alpha["a_moved"]).all()


def test_what_the_text_says_of_the_change_holds_for_the_recorded_run():
    metrics = {n: m["value"] for n, m in results.read("02b_lora_in_depth.tiny")["metrics"].items()}
    assert metrics["delta_w_rank_lowest"] <= 8 < metrics["delta_w_rank_highest"] < 47  # noise: 47
    assert metrics["full_elicit_exact_match"] - metrics["truncated_rank_8"] < 0.05
    assert metrics["truncated_rank_2"] > 0.85
    assert 2 * 8 / 64 < metrics["overlap_lowest"] < metrics["overlap_highest"] < 0.75


def test_a_rate_carries_over_to_another_rank_where_alpha_stays():
    rows = results.rows("alpha_study").query("learning_rate == 0.002")
    price = rows.groupby(["r", "rule", "alpha"])["general_loss"].agg(["mean", "min", "max", "size"])
    eight, constant = price.loc[8, "constant", 16], price.loc[64, "constant", 16]
    others = price.loc[64].drop("constant")
    assert len(others) == 2 and (others["size"] == 3).all() and constant["size"] == 3
    assert eight["min"] < constant["mean"] < eight["max"] + 0.2
    assert (others["min"] > 2 * constant["max"]).all()
    assert (rows.query("r == 64")["test"] > 0.97).all()
