"""DPO and GRPO: against the same passes on fake tensors, and against what they are made of."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import peftmemory
from peftmemory.errors import EstimateError
from peftmemory.preference import DEFAULTS, dpo, grpo
from peftmemory.serving import cache_of_one
from peftmemory.tracing.build import adapt, build_base, materialise, use_own_loss
from peftmemory.tracing.gpu_only import build_optimizer
from peftmemory.tracing.kernels import gpu_kernels
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.step import batch_of, create_states, forward, name_model, packed, quiet
from support.memory_models import TOY

SMALL = {"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "vocab_size": 1024}
SMALL |= {"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
ALL = peftmemory.method("lora", r=8, target_modules="all-linear")
FUSED = {"optimizer": "adamw_torch_fused"}


def traced_dpo(method, pairs, seq, **options):
    """Run policy, reference and backward pass on fake tensors; return the last two's peaks."""
    config = peftmemory.load_config(SMALL)
    setting = peftmemory.StepSetting(batch=2 * pairs, seq=seq, **DEFAULTS | FUSED | options)
    with quiet(), packed(setting):
        model = adapt(build_base(config, setting, device="meta"), config, method, setting)
        second = build_base(config, setting, device="meta") if method == "full" else None
        live = LiveStorages()
        with FakeTensorMode(allow_non_fake_inputs=True), live, gpu_kernels():
            materialise(model)
            if second is not None:
                use_own_loss(second, "chunked")
                materialise(second)
            trained = [p for p in model.parameters() if p.requires_grad]
            name_model(model, live)
            optimizer = build_optimizer(setting.optimizer, trained, config.vocab_size)
            create_states(optimizer, trained, live)
            inputs = batch_of(config, setting)
            _, loss = forward(model, inputs, setting)
            live.enter("forward")
            with torch.no_grad():
                if second is not None:
                    forward(second, inputs, setting)
                else:
                    with model.disable_adapter():
                        forward(model, inputs, setting)
            live.enter("backward")
            loss.backward()
            return [sum(live.peaks[moment].values()) for moment in ("forward", "backward")]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ALL, {}),
        (ALL, {"checkpointing": True}),
        (ALL, {"attention": "eager"}),
        ("full", {}),
        ("full", {"checkpointing": True}),
    ],
)
def test_dpo_holds_what_its_passes_on_fake_tensors_hold(method, options):
    reference, backward = traced_dpo(method, 2, 128, **options)
    moments = dpo(SMALL, method, batch=2, seq=128, **FUSED, **options).moments
    sums = {name: sum(kinds.values()) for name, kinds in moments.items()}
    assert sums["reference"] == pytest.approx(reference, rel=0.03)
    found = max(size for name, size in sums.items() if name.startswith("backward"))
    assert found == pytest.approx(backward, rel=0.03)


def test_a_pair_is_two_sequences_of_one_batch():
    alone = peftmemory.estimate(TOY, ALL, batch=6, seq=32, **DEFAULTS)
    found = dpo(TOY, ALL, batch=3, seq=32, reference="precomputed")
    assert found.moments == alone.moments


@pytest.mark.parametrize("ask", [dpo, grpo])
def test_a_second_model_is_there_at_every_moment(ask):
    base = 2 * peftmemory.parameters("llama-3.2-1b").base
    one, two = (
        ask("llama-3.2-1b", ALL, batch=1, seq=64, reference=each)
        for each in ("adapter-off", "second-model")
    )
    for moment, kinds in two.moments.items():
        more = sum(kinds.values()) - sum(one.moments[moment].values())
        assert more == pytest.approx(base, rel=1e-6)


def test_full_fine_tuning_takes_a_second_model_as_trl_does():
    assert "second-model" in dpo(TOY, batch=1, seq=8).method
    assert "adapter-off" in dpo(TOY, "lora", batch=1, seq=8).method


def test_generation_holds_keys_and_values_of_all_that_is_generated():
    config = peftmemory.load_config("llama-3.1-8b")
    few, many = (
        grpo(config, ALL, batch=2, seq=1024, generated=n).moments["generation"]["activations"]
        for n in (8, 64)
    )
    assert many - few == 56 * cache_of_one(config, 1024)
    training = grpo(config, ALL, batch=2, seq=1024, generated=64).moments
    alone = peftmemory.estimate(config, ALL, batch=2, seq=1024, **DEFAULTS).moments
    assert {name: training[name] for name in alone} == alone


@pytest.mark.parametrize(
    ("ask", "options", "sentence"),
    [
        (dpo, {"batch": 0}, "batch must be a whole number of at least 1"),
        (dpo, {"reference": "adapter-off"}, "has no adapter to switch off"),
        (dpo, {"reference": "teacher"}, "reference must be one of adapter-off"),
        (grpo, {"generated": 0}, "generated must be a whole number of at least 1"),
        (grpo, {"flash": True}, "There is no option 'flash'"),
    ],
)
def test_what_cannot_be_trained_on_is_said_in_one_sentence(ask, options, sentence):
    with pytest.raises(EstimateError, match=sentence):
        ask(TOY, **{"batch": 1, "seq": 8, **options})
