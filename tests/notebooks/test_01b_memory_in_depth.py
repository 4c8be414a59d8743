"""Notebook 01b: what it counts on a small model, and what its text says of recorded and published peaks."""

import copy
import json
import math
import weakref

import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model

import peftmemory
from pefthelpers import results
from pefthelpers.paths import data_dir
from peftmemory.saved_tensors import saved_activations

from .test_01_memory import SHAPE, llama_of


@pytest.fixture(scope="module")
def notebook(cells):
    opened = cells("01b_memory_in_depth")
    opened.namespace |= {"peftmemory": peftmemory, "results": results}
    return opened


@pytest.fixture(scope="module")
def methods(notebook):
    """The cells that wrap a model, count what it keeps in a mode, and switch an adapter off."""
    full = llama_of(SHAPE, torch.float32)
    notebook.namespace |= {
        "copy": copy,
        "weakref": weakref,
        "torch": torch,
        "peftmemory": peftmemory,
        "LoraConfig": LoraConfig,
        "get_peft_model": get_peft_model,
        "saved_activations": saved_activations,
        "model": full,
        "small": copy.deepcopy(full).bfloat16(),
        "on_cpu": copy.deepcopy(full).bfloat16(),
        "ids": torch.randint(0, 80, (8, 64)),
        "config": SHAPE,
    }
    notebook.run("define-saved", "methods", "define-modes", "define-differences")
    return notebook.namespace


def test_the_mode_decides_who_keeps_more_activations(methods):
    """More in two modes, less in three; `counted` asserts that rule and forward pass agree."""
    few, every = methods["lora"](["q_proj", "v_proj"]), methods["lora"]("all-linear")
    more = []
    for mode in methods["modes"].values():
        counts = [methods["counted"](method, mode) for method in (None, few, every)]
        here, seven = zip(*counts, strict=True)
        assert here[1] < here[0] and seven[1] < seven[0]  # q and v: less in every mode
        more.append((here[2] > here[0], seven[2] > seven[0]))
    assert more == [(True, True), (True, True), (False, False), (False, False), (False, False)]


def test_the_base_is_back_only_under_conditions(methods):
    assert methods["differences"](methods["model"])["off"] == 0
    assert methods["differences"](methods["small"])["off"] == 0
    assert methods["differences"](methods["model"])["on"] > 0
    for name in ("pissa", "olora"):
        assert methods["differences"](methods["model"], init_lora_weights=name)["off"] > 0.01
    biased = copy.deepcopy(methods["model"])
    for layer in biased.model.layers:
        layer.self_attn.q_proj.bias = torch.nn.Parameter(torch.zeros(96))
    assert methods["differences"](biased, bias="lora_only")["off"] > 0
    assert methods["differences"](biased)["off"] == 0
    assert methods["differences"](methods["model"], merge=True)["off"] > 0


def test_where_checkpointing_begins_to_pay(notebook):
    recorded = {}
    keep = lambda name, value, **_: recorded.update({name: value})
    notebook.namespace |= {"pd": pd, "record": keep}
    by_moment = notebook.run("checkpointing")
    worst = by_moment.iloc[:-1].idxmax()
    assert worst["full, foreach", "without"] == "optimizer"
    assert worst["full, fused", "without"] == "backward, first layer"
    assert worst["LoRA", "without"] == "backward, loss"
    notebook.run("checkpointing-saves")
    saved = notebook.namespace["saved_share"]
    fused, foreach = (recorded[f"checkpointing_pays_full_{form}"] for form in ("fused", "foreach"))
    assert 2048 < fused < 4096 < foreach and recorded["checkpointing_pays_lora"] == 64
    assert abs(saved("full, fused", 2048)) < 0.001 and saved("full, foreach", 4096) == 0
    assert saved("LoRA", 2048) > 0.5


def test_the_tables_of_seven_billion_are_the_recorded_ones(notebook):
    """The closed form, computed in the notebook, against the record; the trace is equal too."""
    names = {name: results.read(f"memory_{name}") for name in ("claims", "benchmark")}
    notebook.namespace |= {"pd": pd, "claims": names["claims"], "recorded": names["benchmark"]}
    notebook.namespace["record"] = lambda *_, **__: None
    notebook.run("checkpointing", "checkpointing-saves", "seven-methods")
    table = notebook.run("seven").reset_index().set_index(["method", "setting"])
    numbers = table.replace("-", math.nan)
    for method, row in names["claims"]["seven_billion"].items():
        for setting, peak in row["peaks_gb"].items():
            assert table.loc[(method, setting), "closed form, GB"] == peak
    assert table.loc[("full fine-tuning", "bf16, foreach AdamW"), "closed form, GB"] == 67.4
    traced = numbers["traced, GB"].dropna().astype(float)
    assert len(traced) == 13
    assert (traced / table["closed form, GB"][traced.index]).astype(float).between(0.99, 1.01).all()
    same = "full fine-tuning"
    assert traced[same, "bf16"] == traced[same, "bf16, checkpointing"]
    files = notebook.run("seven-files")
    assert files.loc[("LoRA", "r=16 all-linear"), "MB in fp32"] == 159.9
    assert files.loc[("adapters", "Houlsby, reduction 16"), "trained"] == "134,496,256"


def test_one_thing_changes_at_a_time_on_the_way_to_qlora(notebook):
    notebook.namespace |= {"pd": pd, "recorded": results.read("memory_benchmark")}
    notebook.namespace["everywhere"] = peftmemory.method("lora", r=16, target_modules="all-linear")
    notebook.run("seventy")
    table = notebook.run("seventy-table")
    plain, like, qlora = table["GB"].iloc[-3:]
    assert (plain, like, qlora) == (145.2, 143.3, 41.7)
    assert list(table["cards of 80 GiB"]) == [2, 7, 14, 15, 2, 2, 1]


def test_what_the_text_says_of_the_published_peaks():
    found = results.read("memory_benchmark")
    ratios = pd.Series({name: row["ratio"] for name, row in found["published"].items()})
    assert len(ratios) == 11 and (ratios > 1).sum() == 8 and ratios.between(0.95, 1.05).all()
    fitted = pd.Series(found["summary"]["one_longest_batch"]["closed_form_over_published"])
    assert ((fitted - 1).abs() < 0.01).sum() == 7
    assert fitted["full"] < ratios["full"] == ratios.min()


def test_the_record_holds_what_the_issue_asks():
    found = json.loads((data_dir() / "results" / "memory_benchmark.json").read_text())
    assert len(found["published"]) >= 10 and len(found["closed_over_traced"]) >= 20
    for section, tolerance in (
        ("published", 0.05),
        ("closed_over_traced", 0.02),
        ("article", 0.02),
        ("traced_over_measured", 0.02),
    ):
        for name, row in found[section].items():
            assert row["ratio"] == pytest.approx(1, abs=tolerance), name
    exact = found["exact"].values()
    assert all(row["formula_bytes"] == row["measured_bytes"] for row in exact)
    eight, seventy = (found["cost"][f"llama-3.1-{n}b LoRA r=16 all-linear"] for n in (8, 70))
    assert eight["cpu_s"] <= 15 and eight["process_rss_gb"] <= 1 and seventy["cpu_s"] <= 40


def test_the_claims_are_the_packages_figures():
    found = json.loads((data_dir() / "results" / "memory_claims.json").read_text())
    assert [int(claim) for claim in found["figures"]] == [*range(1, 8), *range(9, 15)]
    step = {"batch": 1, "seq": 2048, "optimizer": "adamw_torch_fused"}
    peaks = found["seven_billion"]["full fine-tuning"]["peaks_gb"]
    assert peaks["bf16"] == round(peftmemory.estimate("llama-2-7b", **step).peak / 1e9, 1)
