"""Notebook 04b: its definitions against peft, and the rows that its sentences and the claims rest on."""

import copy
import json
import re

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model

from pefthelpers import results
from pefthelpers.paths import data_dir

CONFIG = {"task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def book(cells):
    from torch import nn

    opened = cells("04b_prefix_in_depth")
    opened.namespace |= {"torch": torch, "nn": nn}
    opened.run("define-looks", "define-gradient_norms")
    return opened


@pytest.mark.parametrize("n", [1, 4])
@torch.no_grad()
def test_the_words_look_elsewhere_above_layer_one_and_get_different_mixtures(llama, book, n):
    base = llama(num_attention_heads=4, num_key_value_heads=2)
    base.set_attn_implementation("eager")
    ids = torch.arange(3, 17)[None]
    torch.manual_seed(0)
    model = get_peft_model(copy.deepcopy(base), PrefixTuningConfig(**CONFIG, num_virtual_tokens=n))
    numbers = torch.randn(n, 4, 2, 16)
    model.prompt_encoder["default"].embedding.weight.data.copy_(numbers.flatten(1))
    layers = [m.eval()(ids, output_attentions=True).attentions for m in (model, base)]
    values = numbers[:, 1::2].permute(1, 2, 0, 3).repeat_interleave(2, 1)  # (L, heads, n, d_head)
    found = [book.namespace["looks"](*each) for each in zip(*layers, values, strict=True)]
    (_, first, alike), (lam, second, _) = found
    assert first.max() <= 1e-4 < second.mean()
    assert ((0 < lam) & (lam < 1)).all()
    # One virtual token gives every word of a head the same; several do not.
    assert (alike.min() > 0.9999) == (n == 1)


def test_gradient_norms_are_those_of_the_prefix(llama, book, wrapped):
    config = PrefixTuningConfig(**CONFIG, num_virtual_tokens=4)
    model, _, ids = wrapped(llama(), config)
    norms = book.namespace["gradient_norms"](model, {"input_ids": ids, "labels": ids}, 2)
    gradient = model.prompt_encoder["default"].embedding.weight.grad
    assert torch.allclose(norms, gradient.view(4, 2, -1).norm(dim=(0, 2)), atol=1e-6)


@pytest.mark.parametrize("projection", [False, True])
def test_no_prefix_can_be_trained_on_from_its_file(llama, tmp_path, projection):
    config = PrefixTuningConfig(
        **CONFIG, num_virtual_tokens=3, prefix_projection=projection, encoder_hidden_size=8
    )
    get_peft_model(llama(), config).save_pretrained(tmp_path)
    PeftModel.from_pretrained(llama(), tmp_path)
    with pytest.raises(ValueError, match="prompt learning adapter to trainable"):
        PeftModel.from_pretrained(llama(), tmp_path, is_trainable=True)


@torch.no_grad()
def test_only_generate_loses_a_prefix_without_a_cache(llama, wrapped):
    model, _, ids = wrapped(llama(), PrefixTuningConfig(**CONFIG, num_virtual_tokens=4))
    assert torch.equal(model(ids, use_cache=False).logits, model(ids).logits)
    with pytest.raises(RuntimeError):
        model.generate(input_ids=ids, max_new_tokens=2, use_cache=False)


def means(name, base, by=("task", "method")):
    rows = results.rows(name).query("base == @base and replay == False")
    return results.at_chosen_rate(rows, list(by)).groupby(list(by))["test"].mean().to_dict()


def test_the_decoder_is_steered_and_not_taught():
    test = means("kitchen_gates", "decoder")
    for method in ("prompt", "prefix"):
        assert test["elicit", method] >= 0.95
        assert test["learn", method] <= 0.10
    assert min(test["learn", "lora"], test["learn", "full"]) >= 0.90


def test_the_t5_learns_a_form_from_a_prefix_and_facts_from_weights():
    test = means("seq2seq_gates", "seq2seq")
    for method in ("prefix", "prefix_projection"):
        assert min(test["elicit", method], test["learn_format", method]) >= 0.95
        assert test["learn_facts", method] <= 0.30
    assert min(test["learn_facts", "lora"], test["learn_facts", "full"]) >= 0.90


@pytest.mark.parametrize("kind", ["random", "projection"])
@pytest.mark.parametrize("search", ["greedy", "four_beams"])
def test_the_t5_generates_nonnas_summaries(kind, search):
    rows = results.rows("prefix_study").query("role == 'seq2seq' and kind == @kind")
    decoded = rows["decoding"] == True
    rate = results.chosen_rate(rows[~decoded].to_dict("records"))
    rows = rows[decoded & (rows["tokens"] == 30) & (rows["learning_rate"] == rate)]
    assert sorted(rows["seed"]) == [0, 1, 2]
    assert rows[search].mean() >= 0.95


def test_facts_come_slowly_and_the_number_of_parameters_is_not_the_reason():
    rows = results.rows("prefix_study").query("task == 'learn'")
    cell = ["kind", "tokens", "steps"]
    chosen = results.at_chosen_rate(rows, cell).groupby(cell).mean(numeric_only=True)
    short = chosen.query("steps == 200")
    assert short["test"].max() <= 0.10 and short["format"].min() >= 0.95
    # Steps do help, against what one reads: far from LoRA, which has fewer parameters and steps.
    longer = chosen.query("steps == 800")
    assert 0.10 < longer["test"].min() and longer["test"].max() < 0.5 < longer["facts"].min()
    assert smallest_lora()["test"].mean() >= 0.95
    assert smallest_lora()["trainable_parameters"].max() < chosen["trained"].max()
    assert smallest_lora()["steps"].max() < 800


def smallest_lora():
    rows = results.rows("lora_study").query("task == 'learn' and r == 1")
    return results.at_chosen_rate(rows.query("targets == 'all linear'"), ["targets"])


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize(
    ("kind", "works", "fails"), [("random", 1.0, 10), ("projection", 0.03, 0.1)]
)
def test_on_elicit_a_rate_works_on_every_seed_or_on_none(kind, works, fails, guarded):
    rows = results.rows("prefix_stability").query("task == 'elicit' and kind == @kind")
    rows = rows.query("clip == @guarded and warmup == @guarded")
    low, high = rows.query("learning_rate <= @works"), rows.query("learning_rate >= @fails")
    assert (low.groupby("learning_rate")["seed"].nunique() == 3).all() and len(low) >= 9
    assert low["validation"].min() >= 0.95 and high["validation"].max() <= 0.05
    # Clipping cannot have mattered without a projection: no gradient was that large.
    assert kind == "projection" or low["large_gradients"].max() == 0


def test_at_the_edge_of_the_window_warm_up_decides():
    rows = results.rows("prefix_stability").query("task == 'elicit' and kind == 'random'")
    edge = rows.query("learning_rate == 3").groupby(["warmup", "clip"])["validation"]
    assert (edge.count() == 3).all() and len(edge) == 4
    assert edge.min()[True].min() >= 0.5 and edge.max()[False].max() <= 0.05


def test_on_learn_trainings_are_unfinished_and_not_divergent():
    rows = results.rows("prefix_stability").query("task == 'learn' and tokens == 64")
    cells = rows.groupby(["kind", "clip", "learning_rate"])
    assert (cells["seed"].nunique() == 3).all() and len(cells) == 5
    lower = rows[rows["learning_rate"].isin([0.3, 0.01])]
    assert lower["highest_rise"].max() <= 0.2
    # A card counts only whole: its score varies far more from seed to seed than the toppings'.
    for _, seeds in lower.groupby(["kind", "clip"]):
        assert seeds["validation"].max() >= 4 * seeds["validation"].min()
        assert seeds["facts"].max() <= 2 * seeds["facts"].min()
    assert rows[~rows.index.isin(lower.index)]["validation"].max() <= 0.02


def recorded():
    path = data_dir() / "baselines" / "04b_prefix_in_depth.tiny.json"
    return {name: m["value"] for name, m in json.loads(path.read_text())["metrics"].items()}


def test_the_article_s_counts_are_recorded():
    metrics = recorded()
    assert metrics["t5_base_trained"] == 14_787_840
    assert metrics["t5_base_saved"] == 552_960
    # The MLP by itself: all that is trained but the vectors that it reads.
    assert metrics["t5_base_projection_alone"] == 14_787_840 - 30 * 768
    assert metrics["text_prefix_difference"] <= 1e-4
    assert min(metrics["greedy_exact_match"], metrics["four_beams_exact_match"]) >= 0.95


def test_attention_among_the_words_moves_above_layer_one_alone():
    metrics = recorded()
    assert metrics["attention_proportions_difference"] <= 1e-3
    assert metrics["attention_among_words_moved"] >= 0.1


def test_the_live_prefix_guesses_no_better_than_the_guesser():
    from pefthelpers import kitchen

    metrics, learn = recorded(), kitchen.learn(0)
    card = re.compile(r": (\w+) then (\w+) , oven , (\w+) \.")
    places = [list(zip(*(card.search(e.answer).groups() for e in part), strict=True))
              for part in (learn.train, learn.test)]  # fmt: skip
    always = [max(sorted(set(place)), key=place.count) for place in places[0]]
    hits = [place.count(word) / len(place) for place, word in zip(places[1], always, strict=True)]
    assert metrics["guesser_learn_content"] == pytest.approx(sum(hits) / 3, abs=1e-6)
    assert metrics["live_learn_content"] <= metrics["guesser_learn_content"] + 0.05


def test_the_short_names_of_the_studies_say_projection_or_none(book):
    from pefthelpers import methods

    assert methods.config("prefix", "decoder").prefix_projection
    assert 'DECODER = COMMON | {"prefix": "prefix, projection"}\n' in book.by_id["gates"].source
    rows = results.rows("seq2seq_gates").groupby("method")["trainable"].max()
    assert rows["prefix"] < rows["prefix_projection"]
    assert '"prefix": "prefix, no projection"' in book.by_id["gates"].source
