"""What people reported of memory (issue 17, cases 10 to 15, 20 and 22), with two more of each kind.

Cases 13 and 14 have further tests in ``test_tracing.py`` (Conv1D in 4 bits) and ``test_fields.py`` (every field of
every configuration), 11 in ``test_advice.py``.
"""

import json

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

import peftmemory
from nbregress import cli
from peftmemory.errors import EstimateError
from peftmemory.predict import predict
from peftmemory.tracing import trace_step
from support.memory_models import TOY

EIGHT = {"batch": 1, "seq": 8}
SMALL = {key: value for key, value in TOY.items() if key not in ("model_type", "vocab_size")}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 96}
FAMILIES = {  # 10: no fused attention, or no causal class
    "gemma2": {**SMALL, "vocab_size": 96, "head_dim": 16, "query_pre_attn_scalar": 16},
    "mt5": {**T5, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0},
    "gemma3_text": {**SMALL, "vocab_size": 96, "head_dim": 16},
    "deberta-v2": {**SMALL, "vocab_size": 96, "max_position_embeddings": 32},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_traced_or_the_sentence_says_how(family):
    config = {"model_type": family, **FAMILIES[family]}
    try:
        found = predict(config, "lora", trace=True, **EIGHT)
    except EstimateError as error:
        assert str(error).endswith("take attention='eager', on the command line --attention eager.")
        found = predict(config, "lora", trace=True, attention="eager", **EIGHT)
    assert found.peak > 0 and found.trainable > 0


NESTED = {  # 11: the sizes stand one level below
    "gemma3": ("text_config", "gemma3_text"),
    "llava": ("text_config", "llama"),
    "internvl_chat": ("llm_config", "qwen2"),
}


@pytest.mark.parametrize("outer", NESTED)
def test_the_text_part_is_read(outer):
    part, inner = NESTED[outer]
    vision = {"vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152}}
    config = {"model_type": outer, part: {**TOY, "model_type": inner}, **vision}
    found = peftmemory.load_config(config)
    assert (found.hidden_size, found.layers, found.model_type) == (64, 2, inner)
    assert f"text part ({inner}) of a multimodal {outer}" in found.notes[0]


def test_a_whole_file_with_two_sides_is_traced():
    bart = {"model_type": "bart", "d_model": 32, "vocab_size": 96, "num_hidden_layers": 2}
    bart |= {f"{side}_layers": 2 for side in ("encoder", "decoder")}
    bart |= {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    bart |= {f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")}
    assert predict(bart, "lora", **EIGHT).traced


@pytest.mark.parametrize("base", ["some/base", None])
def test_an_adapter_s_file_is_told_from_a_model_s(base):
    adapter = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": base}
    with pytest.raises(EstimateError, match=f"give the config.json of {base or 'its base model'}"):
        peftmemory.load_config(adapter)


@pytest.mark.parametrize(
    ("family", "card", "word"),
    [("mistral", ("--max-vram", "24"), "fits"), ("qwen3", ("--card", "t4"), "fits")]
    + [("phi3", ("--card-gib", "0.01"), "not fit")],
)
def test_a_traced_peak_is_compared_with_the_card(family, card, word, tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**TOY, "model_type": family, "pad_token_id": 0}))
    targets = ("--targets", "all-linear")
    call = ["memory", str(file), "--method", "lora", "--seq", "8", *targets, "--trace", *card]
    assert cli.main(call) == 0
    said = capsys.readouterr().out
    assert word in said and "GiB" in said and "trace it" not in said


CONV1D = {  # 13: bitsandbytes' 4 bits replace Conv1D too
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 96},
    "openai-gpt": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 96},
}


@pytest.mark.parametrize("family", CONV1D)
def test_4_bits_shrink_conv1d(family):
    lora = LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
    frozen = [
        trace_step(
            {"model_type": family, **CONV1D[family]},
            lora,
            precision=precision,
            attention="eager",
            **EIGHT,
        ).moments["forward"]["frozen_weights"]
        for precision in ("bf16", "nf4")
    ]
    assert frozen[1] < 0.5 * frozen[0]


FIELDS = {  # 14: LoRA on some layers, or with more than its two matrices
    "layers 0": {"target_modules": r".*layers\.0\..*(q|v)_proj"},
    "layers 1": {"target_modules": r".*layers\.1\..*(q|v)_proj"},
    "exclude_modules": {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "lora_bias": {"target_modules": ["q_proj"], "lora_bias": True},
    "layer_replication": {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [0, 2]]},
    "layers_to_transform": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
    "rank_pattern": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"0.*q_proj": 2}},
}


@pytest.mark.parametrize("field", FIELDS)
def test_what_peft_trains_is_counted_or_left_to_a_trace(field):
    make = lambda: LoraConfig(task_type="CAUSAL_LM", r=8, **FIELDS[field])
    sizes = {key: value for key, value in TOY.items() if key != "model_type"}
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model("llama", **sizes)
        model = get_peft_model(transformers.AutoModelForCausalLM.from_config(config), make())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    try:
        assert peftmemory.parameters(TOY, make()).trainable == trained
    except EstimateError:
        assert predict(TOY, make(), **EIGHT).trainable == trained


@pytest.mark.parametrize(
    ("family", "targets", "missing"),
    [("phi3", ("qkv_proj", "gate_proj", "up_proj"), "gate_proj, up_proj")]
    + [("gpt_neox", ("query_key_value", "q_proj"), "q_proj"), ("llama", ("q_proj", "fc1"), "fc1")],
)
def test_a_name_that_fits_nothing_is_said_for_every_family(family, targets, missing):
    config = {**TOY, "model_type": family, "pad_token_id": 0}
    with pytest.raises(EstimateError, match=f"has no module {missing}"):
        predict(config, peftmemory.method("lora", r=4, target_modules=targets), **EIGHT)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "electra"])
def test_encoders_of_one_shape_are_traced_as_one_kind(family):
    shape = {**SMALL, "vocab_size": 200, "max_position_embeddings": 64, "type_vocab_size": 1}
    shape |= {"pad_token_id": 0, "embedding_size": 64}
    step = {"batch": 4, "seq": 32, "precision": "fp32"}
    found, usual = (
        trace_step({"model_type": name, **shape}, "lora", **step) for name in (family, "roberta")
    )
    assert "ForSequenceClassification" in found.notes[0]
    assert found.kinds["activations"] == pytest.approx(usual.kinds["activations"], rel=0.02)


GATED = {  # 22: exact counts, or a trace
    "t5": {**T5, "feed_forward_proj": "gated-gelu"},
    "mt5": {**T5, "feed_forward_proj": "gated-silu"},
    "llama": {**SMALL, "vocab_size": 96, "attention_bias": True},
    "llama, biases in the feed-forward": {**SMALL, "vocab_size": 96, "mlp_bias": True},
    "qwen2": {**SMALL, "vocab_size": 96},
}


@pytest.mark.parametrize("family", GATED)
def test_variants_of_a_family_are_counted_exactly(family):
    name, sizes = family.split(",")[0], GATED[family]
    kind = "AutoModelForSeq2SeqLM" if "t5" in name else "AutoModelForCausalLM"
    extra = {"decoder_start_token_id": 0, "pad_token_id": 0} if "t5" in name else {}
    make = lambda: LoraConfig(r=8, target_modules="all-linear")
    with torch.device("meta"):
        config = transformers.AutoConfig.for_model(name, **sizes, **extra)
        model = getattr(transformers, kind).from_config(config)
        base = sum(p.numel() for p in model.parameters())
        tuned = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear"))
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    try:
        found = peftmemory.parameters({"model_type": name, **sizes}, make())
        assert (found.base, found.trainable) == (base, trained)
    except EstimateError:
        found = predict({"model_type": name, **sizes, **extra}, make(), **EIGHT)
        assert found.trainable == trained
