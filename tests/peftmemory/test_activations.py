"""The closed form against real tensors, to the byte: saved activations, optimiser states."""

import pytest

import peftbottleneck  # noqa: F401 - makes adapters known to PEFT
import peftmemory
from peftmemory.methods import describe, read_method
from peftmemory.model_states import trained_bytes_each
from peftmemory.optimizers import OPTIMIZERS, state_bytes
from peftmemory.saved_tensors import saved_activations
from peftmemory.trained import trained_tensors
from studies.memory_measure import measure_saved, measure_states
from support.memory_models import TOY

QV = peftmemory.method("lora", r=4, target_modules=("q_proj", "v_proj"))
MLP = peftmemory.method("lora", r=4, target_modules=("gate_proj", "down_proj"))
ALL = peftmemory.method("lora", r=4, target_modules="all-linear")
METHODS = [read_method("full"), QV, MLP, ALL]
METHODS += [peftmemory.method("dora", r=4), peftmemory.method("prompt", num_virtual_tokens=5)]
METHODS += [
    peftmemory.method("prefix", num_virtual_tokens=5),
    read_method("ia3"),
    read_method("ln"),
]
METHODS += [peftmemory.method("houlsby"), peftmemory.method("pfeiffer")]
MIXED = {"precision": "fp32", "autocast": True}
SETTINGS = [{}, {"precision": "fp32"}, MIXED, {"attention": "eager", "padding": True}]


def words(value):
    if isinstance(value, dict):
        return ",".join(f"{k}={v}" for k, v in value.items()) or "bf16"
    return describe(value)


@pytest.mark.parametrize("options", SETTINGS, ids=words)
@pytest.mark.parametrize("method", METHODS, ids=words)
def test_saved_activations_equal_the_formula_to_the_byte(method, options):
    setting = peftmemory.StepSetting(batch=2, seq=24, **options)
    found = saved_activations(peftmemory.load_config(TOY), method, setting)
    assert sum(found.values()) == measure_saved(TOY, method, batch=2, seq=24, **options)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ALL, {"precision": "nf4"}),
        (ALL, {"precision": "nf4", "autocast": True}),
        (ALL, {"precision": "nf4", "prepare_kbit": True}),
        (ALL, {"autocast_adapter_dtype": False}),
        (ALL, {"precision": "nf4", "prepare_kbit": True, "autocast_adapter_dtype": False}),
        (ALL, {"checkpointing": True}),
        (ALL, {"loss": "chunked"}),
        (peftmemory.method("pfeiffer"), {"checkpointing": True}),
        (peftmemory.method("prefix", num_virtual_tokens=5, prefix_projection=True), {}),
        (peftmemory.method("lora", r=4, lora_dropout=0.1), {}),
        (read_method("full"), {"checkpointing": True}),
    ],
)
def test_switches_move_saved_activations_as_the_formula_says(method, options):
    setting = peftmemory.StepSetting(batch=2, seq=24, **options)
    found = saved_activations(peftmemory.load_config(TOY), method, setting)
    assert sum(found.values()) == measure_saved(TOY, method, batch=2, seq=24, **options)


@pytest.mark.parametrize("method", [*METHODS[:2], METHODS[5]], ids=words)
def test_a_single_sequence_is_counted_to_the_byte_too(method):
    found = saved_activations(
        peftmemory.load_config(TOY), method, peftmemory.StepSetting(batch=1, seq=9)
    )
    assert sum(found.values()) == measure_saved(TOY, method, batch=1, seq=9)


@pytest.mark.parametrize("method", ["full", ALL], ids=str)
def test_head_norms_of_qwen3_are_counted(method):
    qwen = {**TOY, "model_type": "qwen3", "head_dim": 16}
    setting = peftmemory.StepSetting(batch=2, seq=24)
    found = saved_activations(peftmemory.load_config(qwen), read_method(method), setting)
    assert sum(found.values()) == measure_saved(qwen, method, batch=2, seq=24)


@pytest.mark.parametrize("method", ["full", ALL], ids=str)
@pytest.mark.parametrize("family", ["mistral", "qwen2", "smollm3", "granite"])
def test_other_pre_norm_decoders_are_counted_to_the_byte(family, method):
    model = {**TOY, "model_type": family, "pad_token_id": 0}
    model |= {"attention_bias": True, "mlp_bias": True} if family == "granite" else {}
    setting = peftmemory.StepSetting(batch=2, seq=24)
    found = saved_activations(peftmemory.load_config(model), read_method(method), setting)
    assert sum(found.values()) == measure_saved(model, method, batch=2, seq=24)


# Every method with two optimisers; a few methods, of unlike shapes, with each of the others.
FULLY = ("adamw_torch", "adamw_8bit")
PAIRS = [(m, name) for name in OPTIMIZERS for m in METHODS[:: 1 if name in FULLY else 4]]


@pytest.mark.parametrize(("method", "optimizer"), PAIRS, ids=str)
def test_optimiser_states_equal_the_formula_to_the_byte(method, optimizer):
    # Wide enough that bitsandbytes quantises some tensors and keeps others in fp32.
    config = peftmemory.load_config({**TOY, "hidden_size": 128, "vocab_size": 256})
    each = trained_bytes_each(method, peftmemory.StepSetting(batch=1, seq=8))
    formula = state_bytes(trained_tensors(config, method), each, optimizer, vocab_size=256)
    measured = measure_states(config, method, batch=1, seq=8, optimizer=optimizer)
    assert formula == measured
