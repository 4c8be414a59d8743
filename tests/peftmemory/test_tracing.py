"""The tracer against real steps, against the closed form, and its refusals."""

import pytest
from peft import LoraConfig, VeraConfig

import peftbottleneck  # noqa: F401 - makes adapters known to PEFT
import peftmemory
from peftmemory.activations import Layer
from peftmemory.configs import read_sheet
from peftmemory.errors import EstimateError
from peftmemory.temporaries import LINES, line_of
from peftmemory.tracing import trace_step
from studies.memory_measure import measure_step

TOY = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
ALL = peftmemory.method("lora", r=8, target_modules="all-linear")


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("full", {"precision": "fp32", "autocast": True}),
        ("full", {"accumulation": True}),
        ("full", {"optimizer": "adamw_torch_fused"}),
        (ALL, {"padding": True}),
        (ALL, {"precision": "nf4"}),
        (ALL, {"precision": "nf4", "double_quant": False}),
        (peftmemory.method("dora"), {}),
        (peftmemory.method("prefix", num_virtual_tokens=10), {}),
        (peftmemory.method("prompt", num_virtual_tokens=10), {}),
        ("ia3", {}),
        ("ln", {}),
        ("houlsby", {}),
        ("pfeiffer", {}),
    ],
)
def test_a_trace_equals_the_allocators_record_of_the_real_step(method, options):
    trace = trace_step(TOY, method, batch=2, seq=64, **options)
    measured = measure_step(TOY, method, batch=2, seq=64, **options)
    assert trace.peak == pytest.approx(measured, rel=0.002)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("full", {}),
        ("full", {"precision": "fp32", "autocast": True, "accumulation": True}),
        ("full", {"optimizer": "adamw_8bit"}),
        (ALL, {}),
        (ALL, {"checkpointing": True}),
        (ALL, {"precision": "nf4"}),
        (peftmemory.method("prefix", num_virtual_tokens=10), {}),
        ("ia3", {}),
        ("houlsby", {}),
    ],
)
def test_the_closed_form_follows_the_trace(method, options):
    trace = trace_step(TOY, method, batch=4, seq=64, **options)
    found = peftmemory.estimate(TOY, method, batch=4, seq=64, **options)
    # A layer's temporaries, the one part that is fitted, weigh far more in a toy than in a model.
    assert found.peak == pytest.approx(trace.peak, rel=0.03)
    assert found.trainable == trace.trainable


@pytest.mark.parametrize("name", LINES)
def test_each_line_of_temporaries_decides_its_traced_case(name):
    line = LINES[name]
    model = {**read_sheet("llama-3.2-1b")["config"], "num_hidden_layers": 2}
    options = {"checkpointing": True, "loss": "chunked", "optimizer": "adamw_torch_fused"}
    step = {"batch": 8, "seq": 1024, **options, **line.options}
    setting = peftmemory.StepSetting(**step)
    layer = Layer(peftmemory.load_config(model), peftmemory.read_method(line.method), setting)
    assert line_of(layer) == name
    found, trace = (ask(model, line.method, **step) for ask in (peftmemory.estimate, trace_step))
    assert found.peak_moment in ("backward, last layer", "backward, first layer")
    rel = 0.03 if line.method == "full" else 0.001
    assert found.peak == pytest.approx(trace.peak, rel=rel)


def test_a_tracer_draws_no_adapter_on_the_cpu(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "torch.nn.init.kaiming_uniform_", lambda t, **_: drawn.append(t.device.type)
    )
    for autocast_adapter_dtype in (True, False):
        drawn.clear()
        trace_step(TOY, ALL, batch=1, seq=8, autocast_adapter_dtype=autocast_adapter_dtype)
        assert {"meta"} <= set(drawn) and ("cpu" in drawn) is not autocast_adapter_dtype


def test_a_real_peft_configuration_is_traced_with_its_own_code():
    light = trace_step(TOY, peftmemory.method("lora", r=8), batch=2, seq=32)
    real = trace_step(TOY, LoraConfig(r=8, target_modules=["q_proj", "v_proj"]), batch=2, seq=32)
    assert light.moments == real.moments
    vera = trace_step(TOY, VeraConfig(r=8, target_modules=["q_proj"]), batch=2, seq=32)
    assert vera.method == "Vera" and vera.peak > 0


@pytest.mark.parametrize("model", ["t5", "roberta"])
def test_other_families_are_traced(model):
    shapes = {
        "t5": {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4},
        "roberta": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "max_position_embeddings": 64, "type_vocab_size": 1},
    }
    special = {"t5": {"decoder_start_token_id": 0}, "roberta": {"pad_token_id": 1}}
    raw = {"model_type": model, "vocab_size": 200, **shapes[model], **special[model]}
    assert trace_step(raw, "lora", batch=2, seq=16).trainable > 0


def test_kinds_and_moments_of_a_full_step():
    trace = trace_step(TOY, batch=2, seq=64)
    base = peftmemory.parameters(TOY).base
    after = trace.moments["optimizer"]
    assert after["gradients"] == 2 * base
    assert after["optimizer_states"] == pytest.approx(4 * base, rel=1e-3)
    assert after["temporaries"] == 2 * base  # the foreach variant's
    assert trace.at_rest < sum(after.values())
    assert trace.to_dict()["peak_moment"] == trace.peak_moment


def test_a_billion_parameters_are_traced_in_seconds():
    trace = trace_step("llama-3.2-1b", "lora", batch=1, seq=512, checkpointing=True)
    assert trace.moments["forward"]["frozen_weights"] == pytest.approx(2 * 1_235_814_400, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("full", {"batch": 0}, "batch must be a whole number"),
        ("prefix", {"checkpointing": True}, "turn one of the two off"),
        (LoraConfig(r=200, target_modules=["q_proj"]), {}, "choose a rank of at most 128"),
        (LoraConfig(target_modules=["query"]), {}, "has no module query"),
        ("full", {"precision": "nf4"}, "4-bit weights cannot be trained"),
    ],
)
def test_what_cannot_be_traced_is_said_in_one_sentence(method, options, expected):
    with pytest.raises(EstimateError, match=expected):
        trace_step(TOY, method, **{"batch": 1, "seq": 8, **options})


def test_pefts_own_refusal_becomes_one_sentence():
    with pytest.raises(EstimateError, match="PEFT refuses this method on this model: "):
        trace_step(TOY, VeraConfig(target_modules=["nothing"]), batch=1, seq=8)


def test_a_model_too_big_to_run_is_refused():
    with pytest.raises(EstimateError, match="trace it with trace_step instead"):
        measure_step("llama-2-7b", batch=1, seq=8)
