"""Notebook 02: its definitions against the library, its exercises against right and wrong answers."""

import copy
import json
import math
import tempfile
import types
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pefthelpers import kitchen, models, profiles, results, training
from pefthelpers.checks import lora as check


@pytest.fixture(scope="module")
def notebook(cells):
    opened = cells("02_lora")
    opened.namespace |= {"torch": torch, "nn": nn, "math": math, "copy": copy, "check": check}
    opened.namespace |= {"training": training, "LambdaLR": LambdaLR}
    opened.run("define-lora", "define-with-lora", "define-train", "define-snapshot", "define-count")
    return opened


@pytest.fixture(scope="module")
def decoder(notebook):
    base, tokenizer = models.load("decoder")
    notebook.namespace |= {"base": base, "kitchen_tokenizer": tokenizer}
    return base


@pytest.mark.parametrize(("r", "alpha"), [(1, 1), (4, 8), (16, 4)])
def test_the_whole_model_equals_pefts_after_some_steps(notebook, decoder, r, alpha):
    torch.manual_seed(r)
    ours = notebook.namespace["with_lora"](copy.deepcopy(decoder), r, alpha)
    config = LoraConfig(r=r, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(copy.deepcopy(decoder), config)
    for name, layer in theirs.base_model.model.named_modules():
        if hasattr(layer, "lora_A"):
            layer.lora_A["default"].weight.data.copy_(ours.get_submodule(name).A)
    trained = {n for n, p in ours.named_parameters() if p.requires_grad}
    assert len(trained) == 56 and all(name[-2:] in (".A", ".B") for name in trained)
    losses = [
        notebook.namespace["train"](m, kitchen.elicit(0).train[:32], learning_rate=1e-2, steps=3)
        for m in (ours, theirs)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and losses[0][2] < losses[0][0]
    ids = torch.arange(12)[None]
    assert (ours(ids).logits - theirs(ids).logits).abs().max() < 1e-3


def test_the_loop_on_the_page_is_the_collections_own(notebook, decoder):
    task, weights = kitchen.elicit(0).train[:32], []
    for fit in (
        lambda m: notebook.namespace["train"](m, task, learning_rate=1e-3, steps=4),
        lambda m: training.fit(
            m, notebook.namespace["kitchen_tokenizer"], task, learning_rate=1e-3, steps=4
        ),
    ):
        torch.manual_seed(0)
        fit(m := notebook.namespace["with_lora"](copy.deepcopy(decoder), 2, 4))
        weights.append(m.model.layers[0].self_attn.q_proj.B.detach())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-6)


def test_the_count_is_pefts(notebook, decoder):
    config = LoraConfig(r=5, target_modules="all-linear", task_type="CAUSAL_LM")
    trained, _ = get_peft_model(copy.deepcopy(decoder), config).get_nb_trainable_parameters()
    assert notebook.namespace["lora_parameters"](decoder, 5) == trained


def test_a_snapshot_counts_what_stayed_and_what_moved(notebook):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    before = notebook.namespace["snapshot"](model)
    counts = lambda: tuple(notebook.namespace["compare"](model, before).values())
    assert counts() == (2, 0)
    with torch.no_grad():
        model[1].weight += 1
        model[0].bias += 1
    assert counts() == (1, 1)
    model.requires_grad_(True)  # what was asked before counts
    assert counts() == (1, 1)


def test_step_zero_changes_nothing(notebook):
    frozen = nn.Linear(8, 6)
    layer = notebook.namespace["LoRALinear"](frozen, r=2, alpha=4)
    x = torch.randn(4, 8)
    assert torch.equal(layer(x), frozen(x))
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"A", "B"}


@pytest.mark.parametrize("number", range(1, 4))
def test_folded_solutions_pass_and_stubs_are_told_so(notebook, number):
    rows = {1e-3: (0.98, 0.62), 2e-3: (1.0, 0.82), 4e-3: (1.0, 3.0), 5e-4: (0.6, 0.62)}
    notebook.namespace |= {
        "base": nn.ModuleDict({"proj": nn.Linear(192, 512)}),
        "RATES": (2e-3, 4e-3),
        "tuned": {rate: rate for rate in (2e-3, 4e-3)},
        "elicited": lambda rate: rate,
        "scores": lambda rate: dict(zip(("validation", "other texts"), rows[rate], strict=True)),
    }
    assert notebook.run(f"exercise-{number}").status == "not attempted"
    found = notebook.execute(notebook.solution(f"solution-{number}"))
    assert found.status == "correct", found
    assert number != 1 or found.message.endswith("it chose 0.001.")


def test_a_verdict_is_readable_as_text_and_as_html():
    verdict = check.largest_rank("A", shapes=[(8, 8)], budget_bytes=1024)
    assert repr(verdict).startswith("✗ Not yet. ")
    assert "<b" in verdict._repr_html_() and "Not yet" in verdict._repr_html_()


def test_each_mistake_in_the_labels_hides_what_its_row_says(notebook):
    from transformers import DataCollatorForLanguageModeling

    tokenizer = models.load("decoder")[1]
    notebook.namespace |= {"kitchen_tokenizer": tokenizer, "elicit": kitchen.elicit(0)}
    notebook.namespace |= {"DataCollatorForLanguageModeling": DataCollatorForLanguageModeling}
    notebook.namespace["pd"] = types.SimpleNamespace(
        DataFrame=lambda rows: types.SimpleNamespace(T=rows)
    )
    rows = notebook.run("silent-counts")
    right, hidden, both = (tuple(row.values()) for row in rows.values())
    assert right[0] == 16 and right[2] == 0
    assert hidden == (0, right[1] - 16, 0)
    assert both[:2] == hidden[:2] and both[2] > 100


@pytest.mark.parametrize("mine", [True, False])
def test_the_stand_alone_cell_takes_a_reader_s_own_file_and_model(notebook, tmp_path, mine):
    base, tokenizer = models.load("decoder")
    file = tmp_path / "mine.jsonl"
    file.write_text('{"messages": []}\n', encoding="utf-8")
    notebook.namespace |= {"base": base, "kitchen_tokenizer": tokenizer, "models": models}
    notebook.namespace |= {"elicit": kitchen.elicit(0), "settings": profiles.settings("decoder")}
    notebook.namespace |= {"tempfile": tempfile, "Path": Path, "json": json}
    notebook.namespace |= {"DATA": str(file) if mine else "", "MODEL": "a/model", "KEEP": ""}
    notebook.run("own-files")
    model, rows = (notebook.namespace[f"own_{name}"] for name in ("model", "data"))
    if mine:
        assert (model, rows) == ("a/model", str(file))
        return
    turns = [json.loads(line)["messages"] for line in Path(rows).read_text().splitlines()]
    assert len(turns) == 320 and [turn["role"] for turn in turns[0]] == ["user", "assistant"]
    asked = tokenizer.apply_chat_template(turns[0][:1], tokenize=False)
    whole = tokenizer.apply_chat_template(turns[0], tokenize=False)
    assert whole.startswith(asked) and tokenizer(whole).input_ids[-1] == tokenizer.eos_token_id
    assert (Path(model) / "config.json").is_file()


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


def test_what_the_text_says_of_the_studies_holds_for_the_records():
    curves = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    mean = curves.groupby(["cell", "steps"])["test"].mean()
    assert mean["lora all r=1", 200] > 0.95 and mean["lora q,v r=4", 200] < 0.3
    assert mean["lora q,v r=4", 400] > 0.9 and mean["lora q,v r=1"].max() < 0.5
    elicit = results.at_chosen_rate(results.rows("lora_study"), ["task", "targets", "r"])
    assert elicit.query("task == 'elicit' and targets == 'q, v' and r == 1")["test"].mean() > 0.9
    rates = (
        results.at_chosen_rate(
            results.rows("kitchen_gates").query("base == 'decoder' and replay == False"),
            ["task", "method"],
        )
        .groupby(["task", "method"])["learning_rate"]
        .first()
    )
    for task in ("elicit", "learn"):
        assert 5 < rates[task, "lora"] / rates[task, "full"] < 20
    real = results.rows("qlora_smollm2").query("four_bit == True and learning_rate == 0.004")
    loss = real.groupby("r")["test_loss"].agg(["mean", "size"])
    assert (loss["size"] == 3).all() and abs(loss["mean"].diff().iloc[-1]) < 0.02
    real = results.rows("qlora_smollm2").query("arm == 'LoRA r=8 alpha=16' and seed == 0")
    rows = real.assign(validation=-real["validation_loss"]).to_dict("records")
    assert results.mildest(rows, tie=results.LOSS_TIE)["learning_rate"] == 0.002


def test_what_the_text_says_of_forgetting_holds_for_the_records():
    learn = results.rows("kitchen_gates").query(
        "base == 'decoder' and task == 'learn' and seed == 0"
    )
    learn = learn[(learn["test"] > 0.5)].sort_values("learning_rate")
    of = lambda method, replay: learn[(learn["method"] == method) & (learn["replay"] == replay)]
    for method in ("lora", "full"):
        assert of(method, False)["facts"].is_monotonic_decreasing
        assert (of(method, False)["tasks"] < of(method, False)["facts"] + 0.01).all()
    kept = of("lora", True)
    assert kept["facts"].min() > 0.9 and kept["tasks"].iloc[-1] < kept["tasks"].iloc[0] - 0.05
    full, lora = (of(m, False).query("0.94 <= test")["facts"].max() for m in ("full", "lora"))
    assert full > lora
    runs = results.rows("laptop_style_study").query("split == 'test' and learning_rate == 0.004")
    mean = runs.groupby("replay_per_batch")[["style_share", "general_leak"]].mean()
    assert mean.loc[0, "general_leak"] > 0.8 and mean.loc[1, "general_leak"] < 0.05
    assert abs(mean["style_share"].diff().iloc[-1]) < 0.02


def test_what_the_text_says_of_the_run_holds_for_the_recorded_one():
    metrics = {n: m["value"] for n, m in results.read("02_lora.tiny")["metrics"].items()}
    assert metrics["base_style_compliance"] == 0 and metrics["own_elicit_exact_match"] > 0.95
    assert metrics["tuned_style_compliance"] > 0.95
    assert metrics["tuned_general_loss"] > metrics["base_general_loss"] + 0.05
    assert metrics["live_elicit_exact_match"] > 0.98
    assert metrics["live_general_loss_at_4e_3"] > 2 * metrics["base_general_loss"]
    for name in ("step0_max_difference", "peft_trained_difference", "reload_max_difference"):
        assert metrics[name] < 1e-3
