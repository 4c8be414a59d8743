"""Notebook 03: its from-scratch merge and its measures equal peft's; its exercises answer as they should."""

import pytest

import peftguards
from pefthelpers.checks import merge as check

EXERCISES = range(1, 5)
DISTANCES = {"dequantised": 1e-6, "original": 0.2, "re-quantised": 0.3}


@pytest.fixture
def book(cells):
    """Return notebook 03 with the names that its cells expect."""
    import torch

    opened = cells("03_merge")
    opened.namespace |= {
        "torch": torch,
        "check": check,
        "distances": DISTANCES,
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


@pytest.fixture
def formats(book):
    """Return the namespace with what 03 measures of a merge in a format."""
    from bitsandbytes import functional

    for name in ("dequantize_4bit", "quantize_4bit"):
        book.namespace[name] = getattr(functional, name)
    book.run("define-noise_and_kept")
    book.run("define-predicted_noise")
    return book.namespace


def random_merge(ratio, *, size=512):
    """Return a random weight, and a correction of rank 8 and this size relative to it."""
    import torch

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    weight, correction = 0.02 * draw(size, size), draw(size, 8) @ draw(8, size)
    return weight, correction * (ratio * weight.norm() / correction.norm())


def test_noise_and_kept_are_those_of_peft_s_own_merge(lora, formats):
    import torch

    model, _ = lora
    model = model.to(torch.bfloat16)
    wanted = {n: m.get_delta_weight("default").double() for n, m in layers(model).items()}
    start = {n: m.weight.clone() for n, m in layers(model).items()}
    noises = {n: peftguards.merge_effect(m)[1] for n, m in layers(model).items()}
    merged = model.merge_and_unload()
    for name, dw in wanted.items():
        noise, kept = formats["noise_and_kept"](start[name], dw, torch.bfloat16)
        after = merged.get_submodule(name.removeprefix("base_model.model.")).weight.double()
        stored = after - start[name].double()
        assert kept == pytest.approx(((stored * dw).sum() / dw.norm() ** 2).item(), rel=1e-3)
        assert noise == pytest.approx(((stored - dw).norm() / dw.norm()).item(), rel=1e-2)
        assert noise == pytest.approx(noises[name], rel=1e-2)


def test_nf4_rounds_as_a_4_bit_base_does(formats):
    import torch

    from pefthelpers import models

    name = "model.layers.0.self_attn.q_proj"
    ours, theirs = (
        models.load("decoder", four_bit=four)[0].get_submodule(name) for four in (False, True)
    )
    back = formats["dequantize_4bit"](theirs.weight.data, theirs.weight.quant_state)
    assert torch.equal(formats["rounded"](ours.weight.detach(), "NF4"), back)


def test_predicted_noise_is_that_of_random_weights(formats):
    import torch

    weight, correction = random_merge(0.05)
    for dtype in (torch.float16, torch.bfloat16):
        noise, kept = formats["noise_and_kept"](weight, correction, dtype)
        assert formats["predicted_noise"](0.05, dtype) == pytest.approx(noise, rel=0.2)
        assert kept == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("form", "ratio", "least", "most"),
    [
        ("bfloat16", 1e-2, 0.99, 1.01),  # noise alone
        ("bfloat16", 3e-3, 0.85, 0.97),  # here swallowing begins
        ("bfloat16", 1e-3, 0.5, 0.75),
        ("bfloat16", 1e-4, 0.0, 0.15),
        ("float16", 1e-3, 0.98, 1.01),
        ("NF4", 1e-1, 0.5, 0.95),
        ("NF4", 1e-2, 0.0, 0.15),
    ],
)
def test_what_rounding_swallows(form, ratio, least, most, formats):
    import torch

    weight, correction = random_merge(ratio)
    noise, kept = formats["noise_and_kept"](weight, correction, getattr(torch, form, form))
    assert least <= kept <= most
    assert noise <= 1.3  # a weight that does not move is wrong by its own part of dW, no more


def test_the_recorded_routes_say_what_03_says():
    """A smaller correction loses more in 4 bits; dequantised is exact; original is now better, now worse."""
    from pefthelpers import results

    rows = results.rows("merge_study").query("profile == 'tiny'")
    settings = rows.groupby(["steps", "learning_rate"])
    assert set(settings["seed"].nunique()) == {3} and len(settings) == 7
    means = settings.mean(numeric_only=True).sort_values("ratio")
    assert means["nf4_kept"].is_monotonic_increasing
    assert means["nf4_kept"].iloc[0] < 0.5 and means["nf4_kept"].iloc[-1] > 0.95
    lost = (means["unmerged_match"] - means["requantised_match"])[means["unmerged_match"] > 0.6]
    assert lost.iloc[0] > 0.3 and lost.iloc[-1] < 0.05
    assert (rows["dequantised_distance"] < 1e-3).all()
    assert (rows["dequantised_bfloat16_distance"] < rows["original_distance"] / 5).all()
    assert (means["bfloat16_kept"] > 0.999).all()
    better = (rows["original_loss"] < rows["unmerged_loss"]).sum()
    assert 0 < better < len(rows)


def test_a_fingerprint_tells_another_value_name_and_format(book):
    import copy
    import hashlib

    import torch

    book.namespace["hashlib"] = hashlib
    fingerprint = defined(book, "fingerprint")
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    others = [copy.deepcopy(model) for _ in range(3)]
    with torch.no_grad():
        others[0][0].weight[3, 3] += 1e-6
    others[1].bfloat16()
    others[2].add_module("spare", torch.nn.Linear(1, 1))
    assert fingerprint(copy.deepcopy(model)) == fingerprint(model)
    assert len({fingerprint(each) for each in [model, *others]}) == 4


def test_the_recorded_run_says_what_03_says():
    """Of bases: the wrong one is worse than the right one bare; merged twice is worse than once. Of formats: kept."""
    from pefthelpers import results

    of = lambda name: results.look_up(f"03_merge/{name}")
    assert of("wrong_base_loss") > of("base_held_out_loss")
    assert of("merged_twice_loss") > 10 * of("nonna_held_out_loss")
    assert of("bfloat16_kept_at_1e-2") > 0.99 and 0.5 < of("bfloat16_kept_at_1e-3") < 0.9
    assert of("merged_weight_difference") == 0
    assert of("shipped_bfloat16_same_choice") == 1
    smol = results.read("03_merge.laptop")["metrics"]
    assert of("median_delta_ratio") > 3 * smol["median_delta_ratio"]["value"] > 0.03
    assert 0.95 < smol["shipped_bfloat16_same_choice"]["value"] < 1


def test_transformers_can_tell_that_a_temperature_alone_is_ignored():
    from transformers import GenerationConfig

    with pytest.raises(ValueError, match="do_sample"):
        GenerationConfig(temperature=0.7).validate(strict=True)


def test_smollm2_s_re_quantised_adapters_are_destroyed_on_each_seed():
    from pefthelpers import results

    rows = results.rows("merge_smollm2")
    assert rows["seed"].nunique() == 3
    assert (rows["requantised_match"] == 0).all() and (rows["unmerged_match"] > 0.95).all()
    assert (rows["original_loss"] > 3 * rows["unmerged_loss"]).all()
    assert (rows["original_match"] > 0.9).all()
    assert (rows["nf4_kept"] < 0.1).all()


@pytest.mark.parametrize("number", EXERCISES)
def test_stub_is_not_attempted_and_solution_is_correct(number, book):
    assert book.run(f"exercise-{number}").status == "not attempted"
    verdict = book.execute(book.solution(f"solution-{number}"))
    assert verdict.status == "correct", verdict
