"""Notebook 08: five descendants against peft, their traps, and what its text says against the records."""

import copy
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, VeraConfig, get_peft_model
from peft import get_peft_model_state_dict as state_of
from peft import set_peft_model_state_dict as load_state
from peft.optimizers import create_loraplus_optimizer
from scipy import stats
from torch import nn

from pefthelpers import kitchen, measure, models, results, training
from pefthelpers.checks import variants as check

LAYERS = ("rslora", "dora", "pissa", "vera")


@pytest.fixture(scope="module")
def notebook(cells):
    opened = cells("08_lora_variants")
    opened.namespace |= {"torch": torch, "nn": nn, "math": math, "copy": copy, "check": check}
    opened.namespace |= {"LoraConfig": LoraConfig, "VeraConfig": VeraConfig, "R": 4, "ALPHA": 6}
    opened.namespace |= {"get_peft_model": get_peft_model, "PeftModel": PeftModel, "SEED": 0}
    opened.namespace |= {"create_loraplus_optimizer": create_loraplus_optimizer, "pd": pd, "np": np}
    opened.namespace |= {"results": results, "kitchen": kitchen, "stats": stats, "Path": Path}
    opened.namespace |= {"training": training, "measure": measure, "tempfile": tempfile}
    opened.namespace["recorded"] = recorded = {}
    opened.namespace["record"] = lambda name, value, **_: recorded.__setitem__(name, value)
    torch.manual_seed(1)
    opened.run("define-lora", "define-step", "define-frozen", "define-plus")
    opened.run(*(f"define-{name}" for name in LAYERS))
    return opened


@pytest.fixture(scope="module")
def kitchen_base():
    """The kitchen decoder and a batch."""
    base, tokenizer = models.load("decoder")
    batch = training.collate(tokenizer, training.encode(tokenizer, kitchen.elicit(0).train[:8]))
    return base, tokenizer, batch


EVERYWHERE = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def test_its_layer_is_that_of_02(notebook, cells):
    assert notebook.by_id["define-lora"].source == cells("02_lora").by_id["define-lora"].source


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_equals_peft_in_output_and_after_a_step(notebook, seed):
    for name in (*LAYERS, "plus"):
        torch.manual_seed(seed)
        notebook.run(f"{name}-same")  # asserts itself
    gaps = [
        v for name, v in notebook.namespace["recorded"].items() if name.endswith("peft_difference")
    ]
    assert len(gaps) == 6 and max(gaps) <= 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_each_is_written_in_at_most_fifteen_lines(notebook, name):
    lines = [line for line in notebook.by_id[f"define-{name}"].source.splitlines() if line.strip()]
    assert len(lines) <= 15


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_solutions_pass_and_the_stubs_are_told_so(notebook, number):
    assert notebook.verdicts(number) == ("not attempted", "correct")


def test_the_first_step_is_flat_where_the_text_says(notebook, kitchen_base):
    metrics = {n: m["value"] for n, m in results.read("08_lora_variants.tiny")["metrics"].items()}
    assert (
        1 / 1.6 < metrics["SGD α/√r growth"] < 1.6 and 1 / 1.6 < metrics["AdamW α/r growth"] < 1.6
    )
    assert metrics["SGD α/r growth"] < 0.05 and metrics["AdamW α/√r growth"] > 4


def test_a_lost_rslora_flag_fits_silently_and_shrinks_the_correction(notebook):
    r = notebook.namespace["R"]
    (_, one, factors) = notebook.namespace["pair"](
        notebook.namespace["LoRALinear"], use_rslora=True
    )
    (_, other, others) = notebook.namespace["pair"](notebook.namespace["LoRALinear"])
    for mine, theirs in zip(others, factors, strict=True):
        mine.data.copy_(theirs)
    x = notebook.namespace["X"]
    size = lambda layer: (layer(x) - layer.base_layer(x)).norm().item()
    assert size(one) / size(other) == pytest.approx(math.sqrt(r), rel=1e-4)


def test_loraplus_counts_vectors_as_b(notebook):
    layer = notebook.namespace["peft_layer"]
    rates = {}
    for name, config in {
        "dora": LoraConfig(r=4, target_modules=["0"], use_dora=True),
        "vera": VeraConfig(r=8, target_modules=["0"]),
    }.items():
        groups = create_loraplus_optimizer(
            nn.Sequential(layer(config)), torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16
        ).param_groups
        rates[name] = {tuple(p.shape): group["lr"] for group in groups for p in group["params"]}
    assert rates["dora"] == {(4, 192): 1e-3, (512, 4): 16e-3, (512,): 16e-3}
    assert rates["vera"] == {(8,): 16e-3, (512,): 16e-3}


def test_a_merge_in_bf16_costs_dora_about_what_it_costs_lora(kitchen_base):
    base, tokenizer, batch = kitchen_base
    errors = {}
    for use_dora in (False, True):
        torch.manual_seed(0)
        half = copy.deepcopy(base).bfloat16()
        model = get_peft_model(
            half, LoraConfig(r=8, lora_alpha=16, use_dora=use_dora, **EVERYWHERE)
        )
        before = model(**batch).logits.float().detach()
        training.fit(model, tokenizer, kitchen.elicit(0).train, learning_rate=2e-3, steps=30)
        wanted = model(**batch).logits.float().detach()
        merged = model.merge_and_unload()(**batch).logits.float().detach()
        errors[use_dora] = ((merged - wanted).norm() / (wanted - before).norm()).item()
    assert 0.001 < min(errors.values()) and max(errors.values()) < 0.1, errors


def test_pissa_off_is_not_the_base_and_a_converted_one_is(kitchen_base, tmp_path):
    base, tokenizer, batch = kitchen_base
    start = base(**batch).logits.detach()
    config = LoraConfig(r=8, lora_alpha=16, init_lora_weights="pissa", **EVERYWHERE)
    pissa = get_peft_model(copy.deepcopy(base), config)
    assert (pissa(**batch).logits - start).abs().max() < 1e-3
    pissa.peft_config["default"].init_lora_weights = True
    pissa.save_pretrained(tmp_path / "pissa_start")
    pissa.peft_config["default"].init_lora_weights = "pissa"
    training.fit(pissa, tokenizer, kitchen.elicit(0).train, learning_rate=5e-4, steps=3)
    wanted = pissa(**batch).logits.detach()
    with pissa.disable_adapter():
        assert (pissa(**batch).logits - start).abs().max() > 5
    way = {"path_initial_model_for_weight_conversion": str(tmp_path / "pissa_start")}
    pissa.save_pretrained(tmp_path / "lora", **way)
    back = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "lora")
    assert back.peft_config["default"].r == 16
    assert (back(**batch).logits - wanted).abs().max() < 1e-3
    with back.disable_adapter():
        assert torch.equal(back(**batch).logits, start)


def test_a_fast_pissa_is_another_model_after_reloading(notebook, kitchen_base):
    base, tokenizer, batch = kitchen_base
    notebook.namespace |= {"base": base, "kitchen_tokenizer": tokenizer, "batch": batch}
    notebook.namespace |= {"start": base(**batch).logits.detach(), "EVERYWHERE": EVERYWHERE}
    notebook.namespace["elicit"] = kitchen.elicit(0)
    notebook.run("define-reloaded")
    recorded = notebook.namespace["recorded"]
    assert recorded["pissa_reload_error"] < 1e-3 and recorded["pissa_niter_reload_error"] > 0.1


def test_pissa_refuses_four_bits_and_rounds_in_bf16(kitchen_base):
    base, _, batch = kitchen_base
    config = LoraConfig(r=8, lora_alpha=16, init_lora_weights="pissa", **EVERYWHERE)
    whole = get_peft_model(copy.deepcopy(base), config)(**batch).logits - base(**batch).logits
    half = copy.deepcopy(base).bfloat16()
    before = half(**batch).logits.float()
    moved = get_peft_model(half, config)(**batch).logits.float() - before
    assert whole.abs().max() < 1e-3 and moved.abs().max() > 0.01
    four, _ = models.load("decoder", four_bit=True)
    with pytest.raises(TypeError, match="float32, float16, or bfloat16"):
        get_peft_model(four, config)


def test_vera_under_another_key_loads_silently_and_is_another_correction(kitchen_base):
    base, _, batch = kitchen_base
    torch.manual_seed(0)
    keyed = lambda key: VeraConfig(
        r=64, projection_prng_key=key, save_projection=False, **EVERYWHERE
    )
    with pytest.warns(UserWarning, match="not save vera_A"):
        one, other = (get_peft_model(copy.deepcopy(base), keyed(key)) for key in (0, 1))
    for name, p in one.named_parameters():
        if "lambda_b" in name:
            p.data.normal_(std=0.05)
    assert load_state(other, state_of(one)).unexpected_keys == []
    change = [(m(**batch).logits - base(**batch).logits).flatten() for m in (one, other)]
    assert torch.cosine_similarity(*change, dim=0).abs() < 0.5
    shared = [m.vera_A["default"].data_ptr() for m in one.modules() if hasattr(m, "vera_lambda_b")]
    assert len({*shared}) == 1


@pytest.fixture(scope="module")
def told(notebook):
    """The notebook's names after its tables of records."""
    from pefthelpers import figures

    notebook.namespace |= {"figures": figures}
    notebook.run("cost-rows", "cost", "results", "results-table", "define-gap", "gaps", "smollm2")
    return notebook.namespace


def test_what_the_text_says_of_costs(told):
    gib, time = told["gib"], told["timed"]["ratio"]
    assert gib["rslora"] == gib["pissa"] == gib["lora"] == gib["loraplus"]
    assert gib["dora"] - gib["lora"] > 10 and 0 < gib["vera"] - gib["lora"] < 1
    assert time["dora"] > 1.15 and (time[["rslora", "loraplus", "pissa"]] - 1).abs().max() < 0.05


def test_what_the_text_says_of_the_gains(told):
    gaps, lower, half = told["gaps"], told["lower"], told["half"]
    assert not (gaps["low"] > 0).any()
    behind = gaps[gaps["high"] < 0].index
    assert {method for _, method in behind} <= {"vera"} and len(behind)
    assert {len(runs) for _, runs in told["chosen"].groupby(["task", "steps", "method"])} == {3}
    assert (lower[48]["dora"] > 0).all() and lower[48]["dora"].mean() < 0.005
    assert lower[48]["dora"].mean() > half[48, "dora"]
    for steps, method in ((48, "rslora"), (24, "loraplus"), (24, "pissa")):
        assert -half[steps, method] < lower[steps][method].mean() < 0
    assert lower[24]["vera"].mean() + half[24, "vera"] < 0 and (lower[24]["vera"] < 0).all()


def test_what_the_text_says_of_the_rates(told):
    rates = told["chosen"].groupby(["task", "steps", "method"])["learning_rate"].first().unstack()
    over = rates.div(rates["lora"], axis=0).drop(columns="lora")
    assert (over["loraplus"].dropna() <= 0.25).all() and (over["vera"].dropna() >= 16).all()
    assert (over[["rslora", "pissa"]].stack() <= 0.5).all()


def test_chosen_rates_are_inside_of_those_tried():
    runs = results.rows("variants_kitchen").query("seed == 0")
    chosen = results.at_chosen_rate(results.rows("variants_kitchen"), ["task", "steps", "method"])
    by = ["task", "steps", "method"]
    for name, cell in chosen.groupby(by):
        tried = runs[(runs[by] == name).all(axis=1)]
        rate = cell["learning_rate"].iloc[0]
        assert tried["learning_rate"].min() < rate < tried["learning_rate"].max()
