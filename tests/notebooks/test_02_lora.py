"""Notebook 02: its definitions against the library, its exercises against right and wrong answers."""

import copy
import math
import types

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pefthelpers import kitchen, models, results, training
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


@pytest.mark.parametrize("number", range(1, 5))
def test_folded_solutions_pass_and_stubs_are_told_so(notebook, number):
    rows = {1e-3: (0.98, 0.62), 2e-3: (1.0, 0.82), 4e-3: (1.0, 3.0), 5e-4: (0.6, 0.62)}
    notebook.namespace |= {
        "base": nn.ModuleDict({"proj": nn.Linear(192, 512)}),
        "RATES": (1e-3, 2e-3, 4e-3),
        "tuned": {rate: rate for rate in (1e-3, 2e-3, 4e-3)},
        "elicited": lambda rate: rate,
        "scores": lambda rate: dict(zip(("validation", "other texts"), rows[rate], strict=True)),
    }
    assert notebook.run(f"exercise-{number}").status == "not attempted"
    found = notebook.execute(notebook.solution(f"solution-{number}"))
    assert found.status == "correct", found
    assert number != 2 or found.message.endswith("it chose 0.001.")


def test_a_verdict_is_readable_as_text_and_as_html():
    verdict = check.largest_rank("A", shapes=[(8, 8)], budget_bytes=1024)
    assert repr(verdict).startswith("✗ Not yet. ")
    assert "<b" in verdict._repr_html_() and "Not yet" in verdict._repr_html_()


def test_lora_saves_a_third_of_a_layers_operations_less_its_own(notebook):
    from torch.utils.flop_counter import FlopCounterMode

    d_in, d_out, r = 48, 80, 4
    layer = notebook.namespace["LoRALinear"](nn.Linear(d_in, d_out), r=r, alpha=8)
    values = {"FlopCounterMode": FlopCounterMode, "ours": layer, "d_in": d_in, "d_out": d_out}
    notebook.namespace |= values | {"R": r, "pd": pd, "record": lambda *_, **__: None}
    row = notebook.run("operations").iloc[0]
    assert row["ratio"] == pytest.approx(1)


def test_each_mistake_in_the_labels_hides_what_its_row_says(notebook):
    tokenizer = types.SimpleNamespace(eos_token_id=1, eos_token="<end>", pad_token="<pad>")
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 1, 0], [5, 8, 9, 9, 1]]),
        "labels": torch.tensor([[-100, -100, 7, 1, -100], [-100, 8, 9, 9, 1]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]),
    }
    notebook.namespace |= {"kitchen_tokenizer": tokenizer, "batch": batch}
    notebook.namespace |= {"DataCollatorForLanguageModeling": lambda *_, **__: None}
    encode = types.SimpleNamespace(encode=lambda *_: None)
    notebook.namespace |= {"training": encode, "elicit": types.SimpleNamespace(train=[])}
    notebook.run("silent-labels")
    seen, hide_end, with_prompt = map(notebook.namespace.get, ("seen", "hide_end", "with_prompt"))
    counts = lambda batch: tuple(seen(batch["labels"]).values())
    assert counts(batch) == (2, 6, 0)
    assert counts(hide_end(batch)) == (0, 4, 0)
    assert counts(with_prompt(batch)) == (2, 6, 3)


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


def test_rates_that_tie_on_the_task_differ_elsewhere():
    rows = results.rows("alpha_study").query("rule == 'constant' and r == 8 and alpha == 16")
    chosen = results.mildest(rows.query("seed == 0").to_dict("records"))["learning_rate"]
    general = rows.groupby("learning_rate")["general_loss"].mean()
    tied = rows[rows["learning_rate"] >= chosen].groupby("learning_rate")["validation"].mean()
    assert len(tied) >= 3 and tied.min() > tied.max() - results.TIE
    assert general.loc[chosen:].is_monotonic_increasing
    assert general.iloc[-1] > 4 * general[chosen]


def test_few_matrices_learn_later_and_not_never():
    curves = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    mean = curves.groupby(["cell", "steps"])["test"].mean().unstack("steps")
    few, all_linear = (mean.loc[name].dropna() for name in ("lora q,v r=4", "lora all r=8"))
    assert few.index[0] == all_linear.index[0] <= 200
    assert few.iloc[0] < 0.15 and few.iloc[-1] > 0.9 < all_linear.iloc[0]


def test_what_the_text_says_of_the_change_holds_for_the_recorded_run():
    metrics = {n: m["value"] for n, m in results.read("02_lora.tiny")["metrics"].items()}
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
