"""Notebook 06b, the companion of 06: codes, constants, optimisers, peaks, and what goes wrong on some CPUs."""

import json

import pytest
import torch

from pefthelpers.checks import qlora as check
from pefthelpers.paths import data_dir

EXERCISES = range(1, 3)


@pytest.fixture
def book(cells):
    """Return notebook 06b with the names that its cells expect, and 06's ``quantise`` and levels."""
    from statistics import NormalDist

    import bitsandbytes as bnb

    built = cells("06_qlora")
    built.namespace |= {"torch": torch, "NormalDist": NormalDist}
    built.run("define-nf4_levels", "define-quantise")
    opened = cells("06b_qlora_in_depth")
    opened.namespace |= built.namespace
    opened.namespace |= {"nn": torch.nn, "bnb": bnb, "check": check}
    opened.run(*(f"define-{name}" for name in ("double_quantise", "rounding", "state_bytes")))
    return opened


def test_no_code_is_best_in_both_meanings(book):
    """Even use doubles the squared error; levels with less of it are used less evenly."""
    names = book.namespace
    names["SEED"], names["BLOCK"], names["record"] = 0, 64, lambda *args, **options: None
    names["pd"], names["levels"] = pytest.importorskip("pandas"), names["nf4_levels"]()
    names["gaussian"] = torch.randn(2**20, generator=torch.Generator().manual_seed(0))
    book.run("lloyd", "lloyd-levels")
    nf4, even, better = (
        names["table"][name] for name in ("nf4", "even use", "small squared error")
    )
    assert even["entropy"] > 3.999 and even["squared error"] > 1.9 * nf4["squared error"]
    assert better["squared error"] < 0.92 * nf4["squared error"]
    assert better["entropy"] < nf4["entropy"] and better["absolute error"] > nf4["absolute error"]


def test_behind_a_cut_gradient_adapters_move_and_learn_less(book):
    """One seed of what the notebook shows on three."""
    from peft import LoraConfig, get_peft_model

    from pefthelpers import measure, models, profiles, tasks, training

    _, tokenizer = models.load("decoder")
    style = tasks.style_task("tiny", tokenizer, seed=0)
    names = book.namespace
    names |= {"models": models, "LoraConfig": LoraConfig, "get_peft_model": get_peft_model}
    names |= {"training": training, "measure": measure, "tokenizer": tokenizer, "PROFILE": "tiny"}
    names |= {"settings": profiles.settings("decoder", "tiny"), "SEED": 0, "R": 8, "STEPS": 60}
    names |= {"train": style.task.train, "test": style.task.test[:60]}
    names["cut_inputs"] = lambda model: [
        layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
        for layer in model.modules()
        if isinstance(layer, names["bnb"].nn.Linear4bit)
    ]
    book.execute(book.by_id["trap-train"].source.split("\nseeds =")[0])
    (cut, still), (whole, _) = (names["learn"](how, 0) for how in (True, False))
    assert still == 0  # every B moved, so peftguards.check_training cannot see it
    assert whole < 0.75 * cut


def test_double_quantisation_is_bitsandbytes_on_its_grid(book, matrix):
    import bitsandbytes.functional as bnb

    names = book.namespace
    _, absmax = names["quantise"](matrix, names["nf4_levels"]())
    _, state = bnb.quantize_4bit(matrix, quant_type="nf4", compress_statistics=True)
    codes, second, offset = names["double_quantise"](absmax, grid=2**16)
    assert torch.equal(codes, state.absmax)
    assert torch.equal(second, state.state2.absmax) and torch.equal(offset, state.offset)
    nearest, _, _ = names["double_quantise"](absmax)
    assert (nearest.int() - codes.int()).abs().max() <= 1  # a neighbour at most


def test_eight_bit_adam_leaves_small_tensors_alone(book):
    import bitsandbytes as bnb

    state_bytes = book.namespace["state_bytes"]
    assert state_bytes(4095, bnb.optim.AdamW8bit) == 8 * 4095
    assert state_bytes(4096, bnb.optim.AdamW8bit) == 2 * 4096 + 2 * 4 * 16
    assert state_bytes(4096, torch.optim.AdamW) == 8 * 4096


@pytest.mark.parametrize("number", EXERCISES)
def test_each_exercise_has_a_stub_and_a_solution_that_fills_it(number, book):
    assert book.verdicts(number) == ("not attempted", "correct")


def rows(name):
    return json.loads((data_dir() / "results" / f"{name}.json").read_text())["rows"]


def test_the_traced_peaks_agree_with_the_closed_form_and_answer_the_claim():
    peaks = rows("qlora_peaks")
    for row in peaks:
        assert row["traced_bytes"] == pytest.approx(row["closed_form_bytes"], rel=0.02), row["way"]
    seventy = [row["traced_bytes"] for row in peaks if row["model"] == "llama-3.1-70b"]
    assert min(seventy) > 24 * 2**30
    assert min(seventy) < 47 * 2**30 < max(seventy) < 79 * 2**30


def test_nf4_is_the_best_of_three_at_every_recorded_block_size():
    errors = {(r["weights_of"], r["block"], r["kind"]): r["error"] for r in rows("qlora_errors")}
    assert len(errors) == 54
    for (source, block, kind), error in errors.items():
        if kind != "nf4":
            assert errors[source, block, "nf4"] < error
    assert errors["Gaussian", 64, "nf4"] == pytest.approx(0.0085, abs=2e-4)


def test_the_highest_learning_rate_forgets_most():
    runs = [row for row in rows("qlora_kitchen") if row["task"] == "elicit" and row["seed"] == 0]
    for arm in {row["arm"] for row in runs}:
        mine = sorted((r["learning_rate"], r["general_loss"]) for r in runs if r["arm"] == arm)
        losses = [loss for _, loss in mine]
        assert max(losses) == losses[-1] > 2 * losses[0], arm


def test_without_prepare_and_only_then_48_gib_hold_a_step_of_70b(book):
    import peftmemory

    names = book.namespace
    names |= {"peftmemory": peftmemory, "pd": pytest.importorskip("pandas")}
    book.run("peaks-ways")
    table = names["by_way"]
    for name, row in table.items():
        assert (row["70B, 512 tokens"] < 47) == ("no prepare" in name), name
    first, *_, last = table.values()
    assert first["8B, 2,048 tokens"] - last["8B, 2,048 tokens"] > 5
