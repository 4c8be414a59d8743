"""The study of the article's runs: operations from two depths are those of the whole model."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import peftmemory
from pefthelpers import results
from peftmemory.configs import load_config
from studies import article_runs
from studies.memory_flops import trace_flops
from support.memory_models import TOY


@pytest.mark.parametrize("layers", [3, 5])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_operations_are_linear_in_the_depth(layers, checkpointing):
    raw = load_config(TOY).raw | {"num_hidden_layers": layers}
    method = peftmemory.method("lora", r=8, target_modules=("q_proj", "v_proj"))
    options = {"batch": 2, "seq": 16, "checkpointing": checkpointing, "padding": True}
    whole = trace_flops(raw, method, **options).total
    assert article_runs.operations(raw, method, options) == whole


def test_the_formula_is_the_trace_at_full_depth():
    peaks = results.rows("article_runs").groupby("name")["peak_bytes"].first()
    traces = results.rows("article_traces").set_index("name")["whole_trace_bytes"]
    assert {*traces.index} == {*article_runs.RUNS}
    assert (peaks / traces).between(0.99, 1.01).all()


def test_a_random_model_loads_as_the_reader_s_own(tmp_path):
    raw = json.dumps(load_config(TOY).raw)
    (tmp_path / "shape").mkdir()
    (tmp_path / "shape" / "config.json").write_text(raw, encoding="utf-8")
    article_runs.random_folder(str(tmp_path / "shape"), str(tmp_path / "model"))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "</s>"
