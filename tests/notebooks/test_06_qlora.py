"""Notebook 06: its from-scratch 4 bits equal bitsandbytes', its exercises answer as they should."""

import json

import pytest
import torch

from pefthelpers.checks import qlora as check
from pefthelpers.paths import data_dir

EXERCISES = range(1, 4)


@pytest.fixture
def book(cells):
    """Return notebook 06 with the names that its cells expect."""
    from statistics import NormalDist

    opened = cells("06_qlora")
    opened.namespace |= {
        "torch": torch,
        "nn": torch.nn,
        "NormalDist": NormalDist,
        "check": check,
    }
    names = ("bits", "nf4_levels", "quantise", "FourBit", "QLoRALinear")  # quantise: and dequantise
    opened.run(*(f"define-{name}" for name in names))
    return opened


def test_the_levels_are_bitsandbytes(book):
    import bitsandbytes.functional as bnb

    levels = book.namespace["nf4_levels"]()
    assert (levels - bnb.get_4bit_type("nf4", device="cpu")).abs().max() <= 1e-7


@pytest.mark.parametrize("block", [32, 64, 256])
def test_bytes_and_constants_are_bitsandbytes(book, matrix, block):
    import bitsandbytes.functional as bnb

    names = book.namespace
    codes, absmax = names["quantise"](matrix, names["nf4_levels"](), block)
    packed, state = bnb.quantize_4bit(matrix, blocksize=block, quant_type="nf4")
    assert torch.equal(names["pack"](codes), packed.flatten())
    assert torch.equal(absmax, state.absmax)
    if matrix.shape[1] % block:
        return  # bitsandbytes brings such weights back wrong on a CPU: see peftguards.refuse_widths
    back = names["dequantise"](packed.flatten(), absmax, names["nf4_levels"](), matrix.shape)
    assert torch.equal(back, bnb.dequantize_4bit(packed, state))


@pytest.mark.parametrize("how", ["bfloat16", "a block of zeros"])
def test_bytes_are_bitsandbytes_of_other_weights_too(book, matrix, how):
    import bitsandbytes.functional as bnb

    names, matrix = book.namespace, matrix.clone()
    if how == "bfloat16":
        matrix = matrix.bfloat16()
    else:
        matrix.view(-1)[:64] = 0.0
    codes, absmax = names["quantise"](matrix, names["nf4_levels"]())
    packed, state = bnb.quantize_4bit(matrix, blocksize=64, quant_type="nf4")
    assert torch.equal(names["pack"](codes), packed.flatten())
    assert torch.equal(absmax, state.absmax)


def test_the_bits_of_the_formula_are_those_stored(book, matrix):
    import bitsandbytes.functional as bnb

    bits = book.namespace["bits"]
    packed, state = bnb.quantize_4bit(matrix, quant_type="nf4")
    assert 8 * (packed.nbytes + state.absmax.nbytes) == bits(64) * matrix.numel()
    assert bits(64, 256) == pytest.approx(4.127, abs=5e-4)


@pytest.mark.parametrize("passes", [1, 2])
def test_the_layer_equals_bitsandbytes_under_peft(book, matrix, passes):
    import bitsandbytes as bnb
    from peft import LoraConfig, get_peft_model

    d_out, d_in = matrix.shape
    frozen = bnb.nn.Linear4bit(
        d_in,
        d_out,
        bias=False,
        quant_type="nf4",
        compress_statistics=False,
        compute_dtype=torch.float32,
    )
    matrix = matrix / matrix.norm() * d_out**0.5
    frozen.load_state_dict({"weight": matrix})
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["0"], init_lora_weights=False)
    theirs = get_peft_model(torch.nn.Sequential(frozen.to("cpu")), config)
    lora = theirs.base_model.model[0]
    a, b = lora.lora_A["default"].weight, lora.lora_B["default"].weight
    ours = book.namespace["QLoRALinear"](matrix, a.detach(), b.detach(), alpha=8)
    inputs = [torch.randn(3, 5, d_in, requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    outputs = []
    for layer, x in zip((ours, theirs), inputs, strict=True):
        for _ in range(passes):  # gradients add up
            y = layer(x)
            y.pow(2).mean().backward()
        outputs.append(y)
    pairs = [outputs, [x.grad for x in inputs], [ours.A.grad, a.grad], [ours.B.grad, b.grad]]
    for mine, library in pairs:
        assert (mine - library).abs().max() <= 1e-5


@pytest.mark.parametrize("number", EXERCISES)
def test_each_exercise_has_a_stub_and_a_solution_that_fills_it(number, book):
    assert book.verdicts(number) == ("not attempted", "correct")


@pytest.mark.parametrize("block", [64, 128])
def test_exercise_1s_block_equals_bitsandbytes(book, block):
    import bitsandbytes as bnb

    book.execute(book.solution("solution-1"))
    levels, w = book.namespace["nf4_levels"](), torch.randn(block)
    packed, constant = book.namespace["quantise_block"](w, levels)
    theirs, state = bnb.functional.quantize_4bit(w, blocksize=block, quant_type="nf4")
    assert torch.equal(packed, theirs.flatten()) and torch.equal(constant, state.absmax[0])


def rows(name):
    return json.loads((data_dir() / "results" / f"{name}.json").read_text())["rows"]


@pytest.mark.parametrize("task", ["elicit", "learn"])
def test_every_arm_of_the_kitchen_study_solves_the_task_where_three_seeds_ran(task):
    runs = [row for row in rows("qlora_kitchen") if row["task"] == task]
    for arm in {row["arm"] for row in runs}:
        mine = [row for row in runs if row["arm"] == arm]
        rates = {row["learning_rate"] for row in mine if row["seed"] == 2}
        assert rates, arm
        for rate in rates:
            final = [row["test"] for row in mine if row["learning_rate"] == rate]
            assert len(final) == 3 and min(final) >= 0.95, (arm, rate)


@pytest.mark.parametrize(
    ("pair", "column", "verdict"),
    [
        ("rank", "test_loss", "not told apart"),
        ("bits_4", "test_loss", "told apart"),
        ("bits_4", "general_loss", "not told apart"),
    ],
)
def test_what_the_real_model_says_of_rank_and_of_four_bits(book, pair, column, verdict):
    from pefthelpers import results

    names = book.namespace
    names |= {"results": results, "pd": pytest.importorskip("pandas")}
    names["smol"] = results.rows("qlora_smollm2")
    book.run("study-smollm2-pairs")
    assert names["difference"](*names[pair], column).split(", ")[1] == verdict


def test_every_arm_on_the_real_model_has_three_seeds_at_a_rate_inside_its_search():
    runs = [row for row in rows("qlora_smollm2") if row.get("learning_rate")]
    arms = {row["arm"] for row in runs}
    assert arms == {"QLoRA r=64 alpha=16", "QLoRA r=8 alpha=16", "LoRA r=8 alpha=16", "full"}
    for arm in arms:
        mine = [row for row in runs if row["arm"] == arm]
        (rate,) = {row["learning_rate"] for row in mine if row["seed"] == 2}
        tried = sorted({row["learning_rate"] for row in mine if row["seed"] == 0})
        assert tried[0] < rate < tried[-1], arm
        assert len([row for row in mine if row["learning_rate"] == rate]) == 3, arm


def test_the_whole_model_by_hand_learns_as_the_library_s(book):
    """Three steps, the same start: the same losses."""
    import copy
    import math

    from peft import LoraConfig, get_peft_model

    from pefthelpers import models, tasks, training

    base, tokenizer = models.load("decoder", dtype="float32")
    names = book.namespace
    names |= {"base": base, "R": 4, "SEED": 0, "copy": copy, "math": math}
    names["linear"] = {
        n: m for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    }
    book.run("by-hand")
    theirs, _ = models.load("decoder", dtype="float32", four_bit=True)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=16, target_modules="all-linear")
    theirs = get_peft_model(theirs, config)
    for name, A in names["start"].items():
        layer = theirs.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data.copy_(A)
    examples = tasks.style_task("tiny", tokenizer, seed=0).task.train
    how = {"learning_rate": 2e-3, "steps": 3, "batch_size": 4, "seed": 0}
    mine, library = (
        training.fit(model, tokenizer, examples, **how) for model in (names["by_hand"], theirs)
    )
    assert mine == pytest.approx(library, abs=1e-4)
    trained = {n for n, p in names["by_hand"].named_parameters() if p.requires_grad}
    assert len(trained) == 2 * len(names["linear"])


def test_four_bits_cost_the_kitchen_decoder_nothing_and_two_bits_ruin_it(book):
    """What the prose beside the table of codes says; SmolLM2's row is recorded."""
    import copy

    from pefthelpers import kitchen, measure, models

    base, tokenizer = models.load("decoder", dtype="float32")
    names = book.namespace
    names |= {"copy": copy, "BLOCK": 64, "base": base}
    names["linear"] = {
        n: m for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"
    }
    book.run("define-rounded")
    kept = kitchen.retention()["documents"][:60]
    loss = lambda levels: measure.mean_loss(names["rounded"](base, levels)[0], tokenizer, kept)
    exact = measure.mean_loss(base, tokenizer, kept)
    assert abs(loss(names["nf4_levels"]()) - exact) < 0.005
    assert loss(torch.arange(-1, 2) / 1) > exact + 0.5
    untrained = [row for row in rows("qlora_smollm2") if row.get("arm") == "base"]
    exact, nf4 = sorted(untrained, key=lambda row: row["four_bit"])
    assert nf4["general_loss"] > exact["general_loss"] + 0.3


def test_the_cell_to_take_home_needs_nothing_of_this_repository(book):
    """Names from outside: a model, its folder, rows."""
    import symtable

    source = book.by_id["alone"].source
    assert "peft" + "helpers" not in source and "peftguards" not in source
    table = symtable.symtable(source, "alone", "exec")
    scopes = [table, *table.get_children()]
    used = {s.get_name() for t in scopes for s in t.get_symbols() if s.is_referenced()}
    made = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    import builtins

    assert used - made - set(dir(builtins)) == {"name", "folder", "rows"}
