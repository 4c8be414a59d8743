"""Every field of a model's or a method's configuration is counted as the libraries do, or refused."""

from contextlib import suppress
from dataclasses import MISSING, fields

import pytest
import torch
import transformers
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig, get_peft_model
from peft.tuners.lora.config import LoraRuntimeConfig

import peftbottleneck  # noqa: F401 - makes adapters known to PEFT
import peftmemory
from peftmemory.errors import EstimateError, NoFormulaError
from peftmemory.methods import KINDS
from peftmemory.sources import model_names, read_sheet
from studies import memory_families
from support.memory_models import TOY

SMALL = {key: value for key, value in TOY.items() if key != "model_type"}
TINY_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 96}
ENCODER = {**SMALL, "max_position_embeddings": 64, "type_vocab_size": 2}
MODELS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "granite"), SMALL),
    "smollm3": {**SMALL, "pad_token_id": 0},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 48, "vocab_size": 96},
    "t5": {**TINY_T5, "decoder_start_token_id": 0},
    "roberta": ENCODER,
    "bert": ENCODER,
}
KINDS_OF_MODEL = {"t5": "AutoModelForSeq2SeqLM", "roberta": "AutoModel", "bert": "AutoModel"}
# What no model class reads of its configuration, or reads for something else than a weight's shape.
ASIDE = {"chunk_size_feed_forward", "is_encoder_decoder", "num_labels", "problem_type"}


def built(model_type, sizes):
    kind = getattr(transformers, KINDS_OF_MODEL.get(model_type, "AutoModelForCausalLM"))
    with torch.device("meta"):
        return kind.from_config(transformers.AutoConfig.for_model(model_type, **sizes))


def count(model):
    return sum(each.numel() for each in model.parameters())


def other(value):
    """Return another value of a field's kind, or None for what has no obvious other."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int) and value > 0:
        return 2 * value
    if isinstance(value, float):
        return value + 0.5
    return None


def changes_of(model_type):
    config = transformers.AutoConfig.for_model(model_type, **MODELS[model_type])
    for each in fields(config):
        if each.name not in ASIDE and other(value := getattr(config, each.name)) is not None:
            yield each.name, other(value)


@pytest.mark.parametrize("model_type", MODELS)
def test_each_field_of_a_model_is_counted_or_refused(model_type):
    walked = refused = 0
    for name, value in changes_of(model_type):
        sizes = {**MODELS[model_type], name: value}
        try:
            real = count(built(model_type, sizes))
        except Exception:  # noqa: BLE001, S112 - transformers itself refuses the combination
            continue
        walked += 1
        try:
            found = peftmemory.parameters({"model_type": model_type, **sizes}).base
        except NoFormulaError:
            refused += 1
        else:
            assert found == real, f"{name}={value!r}"
    assert walked > 8
    assert (refused == walked) is (model_type == "bert")  # which only a trace knows


@pytest.mark.parametrize("name", model_names())
def test_every_committed_shape_has_the_count_of_transformers_class(name):
    config = peftmemory.load_config(name)
    if config.model_type == "roberta":  # its sheet counts the pooler, which a classifier leaves out
        found = count(built("roberta", {k: v for k, v in config.raw.items() if k != "model_type"}))
    else:
        found, _ = memory_families.built(name)
    assert found == read_sheet(name)["parameters"]
    with suppress(NoFormulaError):
        assert peftmemory.parameters(name).base == read_sheet(name)["parameters"]


def test_gated_feed_forwards_of_t5_are_counted():
    for gated in ("relu", "gated-gelu", "gated-silu"):
        sizes = {**MODELS["t5"], "feed_forward_proj": gated}
        found = peftmemory.parameters({"model_type": "t5", **sizes})
        assert found.base == count(built("t5", sizes))
    lora = peftmemory.method("lora", r=8, target_modules="all-linear")
    assert peftmemory.parameters("flan-t5-base", lora).trainable == 3_391_488


# A value for each field of a PEFT configuration that is not simply another number.
VALUES = {
    "target_modules": ["k_proj", "down_proj"],
    "exclude_modules": ["v_proj"],
    "modules_to_save": ["lm_head"],
    "bias": "all",
    "lora_bias": True,
    "layers_to_transform": [0],
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"q_proj": 2},
    "trainable_token_indices": [1, 2],
    "layer_replication": [[0, 2], [0, 2]],
    "target_parameters": ["mlp.gate_proj.weight"],
    "init_lora_weights": "mica",
    "encoder_hidden_size": 24,
    "feedforward_modules": ["down_proj"],
    "runtime_config": LoraRuntimeConfig(ephemeral_gpu_offload=True),
    "placement": "pfeiffer",
}
FORMULAS = [peft_type for _, peft_type in KINDS.values() if peft_type]


def trained(config):
    sizes = {**SMALL, "pad_token_id": 0}
    return sum(
        p.numel()
        for p in get_peft_model(built("llama", sizes), config).parameters()
        if p.requires_grad
    )


@pytest.mark.parametrize("peft_type", FORMULAS)
def test_each_field_of_a_method_is_counted_or_refused(peft_type):
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    start = {"num_virtual_tokens": 4} if "num_virtual_tokens" in kind.__dataclass_fields__ else {}
    walked = 0
    for each in fields(kind):
        if each.name in PeftConfig.__dataclass_fields__ or not each.init:
            continue
        default = each.default if each.default is not MISSING else None
        value = VALUES.get(each.name, other(default))
        if value is None:
            continue
        walked += 1
        make = lambda name=each.name, value=value: kind(
            task_type="CAUSAL_LM", **{**start, name: value}
        )
        try:
            found = peftmemory.parameters({**TOY, "pad_token_id": 0}, make()).trainable
        except (EstimateError, ValueError):
            continue
        assert found == trained(make()), f"{each.name}={value!r}"
    assert walked


def test_a_method_without_a_formula_is_left_to_a_trace():
    ours = {PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] for peft_type in FORMULAS}
    others = set(PEFT_TYPE_TO_CONFIG_MAPPING.values()) - ours
    assert len(others) > 30
    for kind in others:
        try:
            config = kind()
        except (TypeError, ValueError):
            continue  # it cannot be made without more
        with pytest.raises(NoFormulaError, match="There is no formula for"):
            peftmemory.parameters(TOY, config)


def test_a_pattern_for_some_layers_is_left_to_a_trace():
    every = LoraConfig(target_modules=r".*layers\.\d+\..*(q|v)_proj", task_type="CAUSAL_LM")
    assert peftmemory.parameters(TOY, every) == peftmemory.parameters(TOY, "lora")
    for layer in (0, 1):
        some = LoraConfig(target_modules=rf".*layers\.{layer}\..*q_proj")
        with pytest.raises(NoFormulaError, match="differs from layer to layer"):
            peftmemory.parameters(TOY, some)
