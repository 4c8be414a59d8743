"""Notebook 06: its from-scratch 4 bits equal bitsandbytes', its exercises answer as they should."""

import json

import pytest
import torch

from pefthelpers.checks import qlora as check
from pefthelpers.paths import data_dir

EXERCISES = range(1, 6)


@pytest.fixture
def book(cells):
    """Return notebook 06 with the names that its cells expect."""
    from statistics import NormalDist

    import bitsandbytes as bnb

    opened = cells("06_qlora")
    opened.namespace |= {
        "torch": torch,
        "nn": torch.nn,
        "bnb": bnb,
        "NormalDist": NormalDist,
        "check": check,
    }
    names = ("bits", "nf4_levels", "quantise", "dequantise", "double_quantise", "rounding")
    opened.run(*(f"define-{name}" for name in (*names, "FourBit", "QLoRALinear", "state_bytes")))
    return opened


@pytest.fixture(params=["random", "heavy-tailed", "kitchen"])
def matrix(request):
    """Return a weight matrix, (d_out, d_in)."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(320, 192, generator=generator)
    if request.param == "heavy-tailed":
        return random.pow(3)
    if request.param == "kitchen":
        from pefthelpers import models

        return models.load("decoder")[0].model.layers[1].mlp.up_proj.weight.detach()
    return random


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


def test_eight_bit_adam_leaves_small_tensors_alone(book):
    import bitsandbytes as bnb

    state_bytes = book.namespace["state_bytes"]
    assert state_bytes(4095, bnb.optim.AdamW8bit) == 8 * 4095
    assert state_bytes(4096, bnb.optim.AdamW8bit) == 2 * 4096 + 2 * 4 * 16
    assert state_bytes(4096, torch.optim.AdamW) == 8 * 4096


@pytest.mark.parametrize("number", EXERCISES)
def test_each_exercise_has_a_stub_and_a_solution_that_fills_it(number, book):
    stub = book.by_id[f"exercise-{number}"].source
    solution = book.solution(f"solution-{number}")
    assert book.execute(stub).status == "not attempted"
    found = book.execute(solution)
    assert found.status == "correct", found


@pytest.mark.parametrize("block", [64, 128])
def test_exercise_2s_block_equals_bitsandbytes(book, block):
    import bitsandbytes as bnb

    book.execute(book.solution("solution-2"))
    levels, w = book.namespace["nf4_levels"](), torch.randn(block)
    packed, constant = book.namespace["quantise_block"](w, levels)
    theirs, state = bnb.functional.quantize_4bit(w, blocksize=block, quant_type="nf4")
    assert torch.equal(packed, theirs.flatten()) and torch.equal(constant, state.absmax[0])


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


def test_the_highest_learning_rate_forgets_most():
    runs = [row for row in rows("qlora_kitchen") if row["task"] == "elicit" and row["seed"] == 0]
    for arm in {row["arm"] for row in runs}:
        mine = sorted((r["learning_rate"], r["general_loss"]) for r in runs if r["arm"] == arm)
        losses = [loss for _, loss in mine]
        assert max(losses) == losses[-1] > 2 * losses[0], arm


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
    book.run("study-smollm2-pairs")
    assert names["difference"](*names[pair], column).split(", ")[1] == verdict


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
