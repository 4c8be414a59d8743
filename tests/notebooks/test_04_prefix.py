"""Notebook 04: its definitions against peft, its exercises, and the rows that its sentences rest on."""

import copy
import json

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig

from pefthelpers import models, profiles, results
from pefthelpers.checks import prefix as check
from pefthelpers.paths import data_dir
from peftmemory import load_config

EXERCISES = range(1, 5)
CONFIG = {"task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def book(cells):
    import math

    from torch import nn
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    opened = cells("04_prefix_tuning")
    opened.namespace |= {"torch": torch, "nn": nn, "math": math, "copy": copy, "check": check}
    opened.namespace |= {"apply_rotary_pos_emb": apply_rotary_pos_emb}
    opened.namespace |= {"big": {"llama-3.1-8b": load_config("llama-3.1-8b")}}
    names = ("attend", "PrefixAttention", "prefixed", "prompted")
    opened.run(*[f"define-{name}" for name in names])
    return opened


@pytest.mark.parametrize("n", [1, 5])
@torch.no_grad()
def test_a_prefix_by_hand_equals_peft(llama, book, n, wrapped):
    base = llama(num_attention_heads=4, num_key_value_heads=2)
    config = PrefixTuningConfig(**CONFIG, num_virtual_tokens=n)
    theirs, numbers, ids = wrapped(base, config)
    ours = book.namespace["prefixed"](base, numbers.view(n, 4, 2, 16))
    logits = ours(ids, position_ids=n + torch.arange(7)[None]).logits
    assert (logits - theirs(ids).logits).abs().max() <= 1e-5
    assert (logits - base(ids).logits).abs().max() > 1e-2


@torch.no_grad()
def test_a_prefix_by_hand_equals_peft_on_the_kitchen_decoder(book, wrapped):
    base = models.load("decoder")[0].double()
    config = PrefixTuningConfig(**CONFIG, num_virtual_tokens=8)
    theirs, numbers, ids = wrapped(base, config)
    ours = book.namespace["prefixed"](base, numbers.view(8, 8, 2, 32).double())
    logits = ours(ids, position_ids=8 + torch.arange(7)[None]).logits
    assert (logits - theirs(ids).logits).abs().max() <= 1e-5


@torch.no_grad()
def test_without_a_prefix_it_is_the_model_itself(llama, book):
    base, ids = llama(), torch.arange(3, 17).reshape(2, 7)
    bare = book.namespace["prefixed"](base, torch.zeros(0, 4, 1, 32))
    assert (bare(ids).logits - base(ids).logits).abs().max() <= 1e-5


def test_a_prefix_leaves_the_proportions_among_the_words(book):
    attend = book.namespace["attend"]
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8)
    keys, values = torch.randn(2, 4, 3, 8)
    out, weights = attend(q, k, v, keys, values)
    own, before = attend(q, k, v, keys[:, :0], values[:, :0])
    share = weights[..., :3].sum(-1, keepdim=True)
    assert torch.allclose(weights[..., 3:], (1 - share) * before, atol=1e-6)
    mixed = (1 - share) * own + weights[..., :3] @ values
    assert torch.allclose(out, mixed, atol=1e-6)


@torch.no_grad()
def test_a_prompt_by_hand_equals_peft(llama, book, wrapped):
    base = llama()
    config = PromptTuningConfig(**CONFIG, num_virtual_tokens=4, prompt_tuning_init="RANDOM")
    theirs, numbers, ids = wrapped(base, config)
    difference = book.namespace["prompted"](base, numbers, ids) - theirs(ids).logits
    assert difference.abs().max() <= 1e-5


def recorded():
    path = data_dir() / "baselines" / "04_prefix_tuning.tiny.json"
    return {name: m["value"] for name, m in json.loads(path.read_text())["metrics"].items()}


def test_what_is_written_by_hand_is_peft_s_also_after_training():
    metrics = recorded()
    assert metrics["lambda_identity_difference"] <= 1e-5
    assert metrics["prefix_max_difference"] <= 1e-5
    assert metrics["prompt_max_difference"] <= 1e-5
    assert metrics["training_difference"] <= 1e-3
    assert min(metrics["trained_prefix_elicit"], metrics["trained_prompt_elicit"]) >= 0.9


@torch.no_grad()
def test_the_words_of_a_padded_row_are_trained_as_those_of_a_row_alone(llama, book):
    """What `shifted` says: padding stands behind the words, so no word sees it."""
    base, ids = llama(num_attention_heads=4, num_key_value_heads=2), torch.arange(3, 17)[None]
    ours = book.namespace["prefixed"](base, torch.randn(4, 4, 2, 16))
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.long)], 1)
    alone, behind = (ours(row, position_ids=4 + torch.arange(row.shape[1])[None]).logits
                     for row in (ids, padded))  # fmt: skip
    assert (behind[:, :14] - alone).abs().max() <= 1e-5


RECIPES = {"decoder": "max_steps=60", "seq2seq": "max_steps=40"}


@pytest.mark.parametrize("role", RECIPES)
def test_a_recipe_stands_alone(book, role, tmp_path, capsys):
    """It runs with nothing but what its first lines ask for: a model, rows, a folder."""
    from pefthelpers import kitchen

    folder = models.folder_of(role, profiles.settings(role))
    rows = kitchen.elicit(0).train[:32] if role == "decoder" else kitchen.summaries(0).train[:32]
    given = {"FOLDER": str(tmp_path), "DEVICE": "cpu", "MODEL": folder, "T5": folder}
    given["ROWS"] = [{"prompt": e.prompt + " ", "completion": e.answer} for e in rows]
    given["PAIRS"] = [{"source": e.prompt, "target": e.answer} for e in rows]
    given |= {"ASK": rows[0].prompt, "T5_ASK": rows[0].prompt, "T5_WANTED": rows[0].answer}
    source = book.by_id[f"recipe-{role}"].source
    assert RECIPES[role] in source
    exec(source.replace(RECIPES[role], "max_steps=2"), given)  # noqa: S102 - our own notebook
    assert [*tmp_path.rglob("adapter_model.safetensors")] and capsys.readouterr().out.strip()


def test_a_prefix_learns_facts_slowly_and_a_prompt_of_eight_did_not():
    rows = results.at_chosen_rate(results.rows("budget_curves"), ["cell", "steps"])
    mean = rows.groupby(["cell", "steps"])["test"].mean()
    assert mean["prefix"][200] <= 0.05 and 0.7 <= mean["prefix"][2000] <= 0.95
    assert mean["prefix"].is_monotonic_increasing and sorted(mean["prompt"].index) == [
        200,
        800,
        2000,
    ]
    assert mean["prompt"].max() == 0
    assert min(mean["lora all r=8"][100], mean["full"][200]) >= 0.95
    trained = rows.groupby("cell")["trainable_parameters"].mean()
    assert trained["prefix"] == pytest.approx(trained["lora all r=8"], rel=0.05)
    gates = results.rows("kitchen_gates").query("base == 'decoder' and task == 'elicit'")
    gates = results.at_chosen_rate(gates[gates["replay"] == False], ["method"])
    assert gates.groupby("method")["test"].mean().min() >= 0.95


@pytest.mark.parametrize("role", ["decoder", "seq2seq"])
def test_without_projection_the_rate_is_thirty_to_a_hundred_times_higher(role):
    rows = results.rows("prefix_study").query("task == 'elicit' and tokens in [8, 30]")
    rows = rows[(rows["role"] == role) & rows["validation"].notna()]
    worst = rows.groupby(["kind", "learning_rate"])["validation"].min()
    lowest = {kind: min(r for r, v in worst[kind].items() if v >= 0.9)
              for kind in ("random", "projection")}  # fmt: skip
    assert 30 <= lowest["random"] / lowest["projection"] <= 100
    lora = profiles.settings("decoder").learning_rates["lora"]
    around = {r: v for r, v in worst["random"].items() if lora / 3 <= r <= 2 * lora}
    assert len(around) == 2 and max(around.values()) == 0
    laptop = profiles.settings("decoder", "laptop").learning_rates
    assert laptop["text_prefix"] / laptop["lora"] == pytest.approx(5)


def test_the_published_scores_are_the_recorded_ones(book):
    rows = results.rows("peft_metamathqa_scores").set_index("name")
    share = lambda name: f"{rows['accuracy'][name]:.0%}".replace("%", " %")
    prefixes = rows[rows["method"] == "prefix"]["accuracy"]
    text = book.by_id["published-md"].source
    assert f"Full fine-tuning reached {share('full')}" in text
    assert f"LoRA of rank 32 on q and v {share('LoRA r32 q, v')}" in text
    assert f"between {prefixes.min():.0%}"[:-1] in text and f"and {prefixes.max():.0%}"[:-1] in text
    assert f"a prompt of 200 tokens that started from words {share('prompt 200, words')}" in text


def test_every_claim_on_prefixes_has_a_cell_that_shows_it():
    import yaml

    claims = yaml.safe_load((data_dir() / "claims.yaml").read_text(encoding="utf-8"))
    claims = claims["claims"] if isinstance(claims, dict) else claims
    ours = ("04_prefix_tuning", "04b_prefix_in_depth")
    shown = {each["claim"] for each in claims
             if any(e.get("notebook") in ours for e in each["evidence"])}  # fmt: skip
    assert set(range(33, 40)) <= shown


@pytest.mark.parametrize("number", EXERCISES)
def test_an_exercise_is_not_attempted_until_its_solution_is_put_in(number, book):
    stub, solution = book.by_id[f"exercise-{number}"].source, book.solution(f"solution-{number}")
    statuses = [book.execute(source).status for source in (stub, solution)]
    assert statuses == ["not attempted", "correct"]


def test_exercise_4s_mask_makes_a_padded_row_what_it_is_alone(book):
    book.execute(book.solution("solution-4"))
    draw, attention = torch.randn, torch.nn.functional.scaled_dot_product_attention
    n, seq, pad = 3, 7, 2
    keys, values, q, k, v = draw(2, n, 4), draw(2, n, 4), *(draw(1, 2, seq, 4) for _ in range(3))
    mask = torch.tensor([[0] * pad + [1] * (seq - pad)])
    k[..., :pad, :], v[..., :pad, :] = 1e3, 1e3  # what padding holds must not matter
    whole = attention(
        q,
        torch.cat([keys[None], k], 2),
        torch.cat([values[None], v], 2),
        attn_mask=book.namespace["may_look"](mask, n)[:, None],
    )
    alone, _ = book.namespace["attend"](*(t[:, :, pad:] for t in (q, k, v)), keys, values)
    assert torch.allclose(whole[:, :, pad:], alone, atol=1e-5) and whole.isfinite().all()


def test_the_trained_system_message_makes_cards_and_leaks():
    rows = results.rows("laptop_prefix_study").query("split == 'test'")
    message, trained = (rows.query(f"learning_rate {which} 0") for which in ("==", ">"))
    assert sorted(trained["seed"]) == [0, 1, 2]
    assert trained["style_share"].mean() >= message["style_share"].mean() + 0.5
    assert trained["general_leak"].min() > message["general_leak"].max()


@pytest.mark.parametrize("seq", [128, 512])
def test_a_prompt_s_first_pass_costs_little_more_than_n_over_seq(seq):
    extra = recorded()[f"prompt_first_pass_extra_{seq}"]
    assert 8 / seq < extra < 1.5 * 8 / seq
