"""Notebook 01: its definitions against the package, its exercises against right and wrong answers."""

import copy
import math
import re
import types
import weakref
from collections import Counter

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig

import peftmemory
from pefthelpers import models, profiles, results
from pefthelpers.checks import memory as check
from peftmemory.optimizers import state_bytes
from peftmemory.saved_tensors import saved_activations
from studies.memory_measure import measure_saved

SHAPE = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 80,
}


@pytest.fixture(scope="module")
def notebook(cells):
    opened = cells("01_full_finetuning_memory")
    names = {"torch": torch, "weakref": weakref, "TorchDispatchMode": TorchDispatchMode}
    opened.namespace |= {**names, "check": check, "peftmemory": peftmemory}
    opened.run("define-live", "define-step", "define-kept", "define-saved")
    return opened


def llama_of(shape, dtype):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {key: value for key, value in shape.items() if key != "model_type"}
    return LlamaForCausalLM(LlamaConfig(**sizes)).to(dtype).train()


@pytest.mark.parametrize(("batch", "seq"), [(1, 2), (1, 5), (1, 32), (2, 5), (3, 32)])
def test_the_formula_of_the_notebook_is_the_packages_and_real(notebook, batch, seq):
    model = llama_of(SHAPE, torch.bfloat16)
    ids = torch.randint(0, 80, (batch, seq))
    ours = notebook.namespace["kept_bytes"](model.config, batch, seq)
    setting = peftmemory.StepSetting(batch=batch, seq=seq)
    package = saved_activations(
        peftmemory.load_config(SHAPE), peftmemory.read_method("full"), setting
    )
    assert ours == sum(package.values())
    assert ours == notebook.namespace["saved_bytes"](model, ids)
    assert ours == measure_saved(SHAPE, batch=batch, seq=seq)


def test_the_clock_counts_births_and_deaths(notebook):
    live = notebook.namespace["Live"]()
    with live:
        one = torch.zeros(1000)
        view = one[:10]
        two = one + 1
        del one, view
        three = two * 2
    assert live.history[-1] == two.nbytes + three.nbytes
    assert max(live.history) == 8000  # one and two, then two and three; a view adds nothing


def test_a_step_holds_gradients_only_after_the_backward_pass(notebook):
    model = llama_of(SHAPE, torch.float32)
    count = sum(p.numel() for p in model.parameters())
    _, at = notebook.namespace["live_step"](model, torch.randint(0, 80, (1, 2)))
    assert at["end of forward"] == pytest.approx(12 * count, rel=0.05)  # weights and moments
    assert at["end of backward"] == pytest.approx(16 * count, rel=0.01)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_autograd_holds_autocasts_copies_until_the_backward_pass(notebook, checkpointing):
    """About two bytes a parameter, unless checkpointing drops them with autocast's block."""
    model = llama_of(SHAPE, torch.float32)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, 80, (1, 2))
    _, at = notebook.namespace["live_step"](model, ids, autocast=True)
    freed = at["end of forward"] - at["after autocast"]
    linear = sum(p.numel() for name, p in model.named_parameters() if "proj" in name)
    assert freed == pytest.approx(2 * linear if checkpointing else 0, rel=0.02)


def test_foreach_holds_a_temporary_as_large_as_the_weights(notebook):
    """The peak of a step in bf16: 10 bytes a parameter against 8, before small things."""
    model, ids = llama_of(SHAPE, torch.bfloat16), torch.randint(0, 80, (1, 2))
    count = sum(p.numel() for p in model.parameters())
    step = notebook.namespace["live_step"]
    foreach, fused = (step(copy.deepcopy(model), ids, **{o: True}) for o in ("foreach", "fused"))
    assert max(foreach[0].history) == pytest.approx(10 * count, rel=0.01)
    assert max(fused[0].history) < 8.6 * count
    tail = foreach[0].history[-10:]
    assert max(tail) == max(foreach[0].history)  # in the optimiser's step


def test_eight_bit_states_are_counted_once(notebook):
    """Without the shared tables of codes, what is above 6.03 is small tensors in fp32."""
    import bitsandbytes

    model = llama_of(SHAPE | {"hidden_size": 96, "intermediate_size": 224}, torch.bfloat16)
    tensors = [tuple(p.shape) for p in model.parameters()]
    count = sum(map(math.prod, tensors))
    ids, optimizer = torch.randint(0, 80, (1, 2)), bitsandbytes.optim.AdamW8bit
    _, at = notebook.namespace["live_step"](model, ids, optimizer=optimizer)
    states = state_bytes(Counter(tensors), 2, "adamw_8bit")
    assert at["end of backward"] == pytest.approx(4 * count + states, abs=300)  # the loss, rotary


@pytest.mark.parametrize("sizes", [(1, 9), (3, 20)])
@pytest.mark.parametrize("r", [2, 8])
def test_exercise_3s_solution_is_what_autograd_keeps_with_peft(notebook, sizes, r):
    notebook.execute(notebook.solution("solution-3"))
    model = llama_of(SHAPE, torch.bfloat16)
    predicted = notebook.namespace["lora_kept"](model.config, *sizes, r)
    targets = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(r=r, **targets)).train()
    ids = torch.randint(0, SHAPE["vocab_size"], sizes)
    assert predicted == notebook.namespace["saved_bytes"](adapted, ids)


@pytest.fixture(scope="module")
def estimates(notebook):
    """The names that the cells on Llama-3.1-8B share, and what they record."""
    recorded = {}
    draw = types.SimpleNamespace(
        bars=lambda rows, **how: None,
        curves=lambda lengths, lines, xlabel: recorded.update(lines=lines),
    )
    keep = lambda name, value, **_: recorded.update({name: value})
    notebook.namespace |= {"pd": pd, "GIB": peftmemory.GIB, "CARD_GIB": 24, "record": keep}
    notebook.namespace |= {"draw": draw, "copy": copy, "results": results}
    notebook.run("promise")
    return recorded, notebook.namespace["plans"]


def test_what_the_first_figures_text_says(estimates):
    peaks = {name: plan.peak / peftmemory.GIB for name, plan in estimates[1].items()}
    mixed, full, lora, thrifty, qlora, chunked = peaks.values()
    assert mixed > max(peftmemory.CARDS_GIB) > full > 48
    assert lora > thrifty > qlora > chunked
    kinds = estimates[1]["LoRA"].kinds
    rest = kinds["activations"] + kinds["logits"]
    assert rest > estimates[1]["LoRA"].peak / 2  # the larger half
    assert kinds["optimizer_states"] + kinds.get("gradients", 0) < 0.02 * estimates[1]["LoRA"].peak
    assert thrifty < 24


BIG = ["smollm2-135m", "llama-3.2-1b", "llama-2-7b", "llama-3.1-8b", "qwen3-0.6b"]


@pytest.mark.parametrize("name", BIG)
@pytest.mark.parametrize(("batch", "seq"), [(1, 512), (1, 2048), (2, 4096)])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_thirty_lines_are_the_closed_form(notebook, name, batch, seq, foreach, held):
    """Each of the six moments, tied embeddings and not, and Qwen3's norms of heads."""
    notebook.run("define-moments")
    config = AutoConfig.for_model(**peftmemory.load_config(name).raw)
    count = peftmemory.parameters(name).base
    sizes = {"batch": batch, "seq": seq}
    ours = notebook.namespace["six_moments"](config, count, **sizes, foreach=foreach, held=held)
    optimizer = "adamw_torch" if foreach else "adamw_torch_fused"
    package = peftmemory.estimate(name, optimizer=optimizer, free_outputs=not held, **sizes)
    assert list(ours) == list(package.moments)
    for moment, kinds in package.moments.items():
        assert sum(ours[moment].values()) == pytest.approx(sum(kinds.values()), rel=1e-3), moment


@pytest.mark.parametrize(("batch", "seq"), [(2, 40), (4, 64), (8, 64)])
def test_thirty_lines_are_a_real_steps_peaks(notebook, batch, seq):
    notebook.run("define-moments")
    model = llama_of(SHAPE | {"vocab_size": 600}, torch.bfloat16)
    count = sum(p.numel() for p in model.parameters())
    ids = torch.randint(0, 600, (batch, seq))
    live, _ = notebook.namespace["live_step"](model, ids, fused=True)
    ours = notebook.namespace["six_moments"](model.config, count, batch, seq, held=False)
    totals = {moment: sum(kinds.values()) for moment, kinds in ours.items()}
    for phase, peak in zip(("forward", "backward", "optimizer"), live.peaks(), strict=True):
        most = max(total for moment, total in totals.items() if moment.startswith(phase))
        assert most == pytest.approx(peak, rel=0.01), phase


def test_the_sign_depends_on_the_mode(notebook, estimates):
    """LoRA on q and v keeps less in all five modes, on all linear maps more in two."""
    few, every = ({"target_modules": t} for t in (["q_proj", "v_proj"], "all-linear"))
    made = {"full": None, "q, v": LoraConfig(r=8, **few), "all": LoraConfig(r=8, **every)}
    notebook.namespace |= {"saved_activations": saved_activations, "LoraConfig": LoraConfig}
    notebook.namespace |= {"get_peft_model": get_peft_model, "methods": made}
    notebook.run("methods")
    table = notebook.run("modes")
    assert (table["q, v"] < 1).all() and list(table["all"] > 1) == [True, True, False, False, False]
    assert estimates[0]["lora_all_linear_over_full_activations"] == pytest.approx(
        table.iloc[0, 1], abs=0.005
    )


def test_what_the_text_says_of_a_real_gpu(notebook, estimates):
    notebook.run("gpu-rows")
    table = notebook.run("gpu")
    gap, held = table["allocated"] - table["predicted"], table["reserved"] / table["allocated"]
    assert (
        len(table) == 15
        and gap.between(0.06, 0.11).all()
        and table["predicted"].between(1, 61).all()
    )
    assert (table["predicted / allocated"] > 0.98)[table.index != "smollm2-135m"].all()
    assert 1.2 < held.max() < 1.25 and held.min() > 1


def test_for_which_column_checkpointing_pays(notebook, estimates):
    table = notebook.run("fits")
    worst, peak = table.iloc[:-1].idxmax(), table.iloc[-1]
    assert (
        worst["full, foreach", "without"] == worst["full, foreach", "checkpointing"] == "optimizer"
    )
    assert worst["full, fused", "without"] == worst["LoRA", "without"] == "backward, loss"
    assert worst["full, fused", "checkpointing"] == "backward, embedding"
    assert peak["full, fused", "without"] - peak["full, fused", "checkpointing"] < 0.5
    assert 0.5 < peak["LoRA", "checkpointing"] / peak["LoRA", "without"] < 0.55


def test_what_the_text_says_of_the_lengths(notebook, estimates):
    notebook.run("lines")
    recorded, lines = estimates[0], estimates[0]["lines"]
    assert min(lines["full"][:3]) > 0.98 * max(lines["full"][:3])
    assert lines["full"][3] > 1.2 * lines["full, checkpointing"][3]
    for row in zip(*lines.values(), strict=True):
        assert min(row) == row[3]  # LoRA with checkpointing, at every length
    assert lines["LoRA"][-1] > lines["full"][-1]
    assert recorded["eager_over_fused_at_16384_tokens"] > 9


def test_the_cell_that_stands_alone_measures_what_is_estimated(notebook, capsys):
    """Within two per cent of the closed form, for two steps of LoRA on the kitchen decoder."""
    names = {"models": models, "profiles": profiles, "PROFILE": "tiny"}
    notebook.namespace |= {**names, "model": types.SimpleNamespace(device="cpu")}
    notebook.run("alone")
    found = float(re.search(r"MiB: ([\d.]+)", capsys.readouterr().out)[1])
    model = notebook.namespace["base"].config
    lora = peftmemory.method("lora", r=8, target_modules="all-linear")
    setting = {"optimizer": "adamw_torch_fused", "free_outputs": True}
    closed = peftmemory.estimate(model, lora, batch=4, seq=128, **setting)
    assert found == pytest.approx(closed.peak / 2**20, rel=0.02)


@pytest.mark.parametrize("card", [16, 80])
def test_exercise_4_does_not_follow_the_readers_card(notebook, estimates, card):
    notebook.namespace |= {"CARD_GIB": card}
    solution = notebook.solution("solution-4")
    assert notebook.execute(solution).status == "correct"
    wrong = solution.replace('answer = "gradient checkpointing"', 'answer = "rank 4"')
    assert notebook.execute(wrong).status == "not yet"


@pytest.mark.parametrize("number", range(1, 5))
def test_folded_solutions_pass_and_stubs_are_told_so(notebook, estimates, number):
    assert notebook.run(f"exercise-{number}").status == "not attempted"
    assert notebook.execute(notebook.solution(f"solution-{number}")).status == "correct"
