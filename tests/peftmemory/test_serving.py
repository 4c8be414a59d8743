"""Serving: against transformers' own cache, PEFT's own adapters and a traced forward pass."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers.cache_utils import StaticCache

import peftmemory
from peftmemory import serving
from peftmemory.cards import verdict
from peftmemory.errors import EstimateError
from peftmemory.serving import CACHED, cache_of_one, most_sequences, parameters_of, serve
from peftmemory.tracing.build import build_base, materialise
from peftmemory.tracing.heads import hf_config
from peftmemory.tracing.live import LiveStorages
from peftmemory.tracing.step import quiet
from support.memory_models import TOY

KNOWN = [n for n in peftmemory.model_names() if peftmemory.load_config(n).model_type in CACHED]
SLIDING = {**TOY, "num_hidden_layers": 9, "sliding_window": 256, "head_dim": 16}
VARIANTS = {
    "mistral": {"model_type": "mistral"},
    "mistral without a window": {"model_type": "mistral", "sliding_window": None},
    "qwen2 slides above": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "max_window_layers": 4,
    },
    "qwen2 does not": {"model_type": "qwen2", "use_sliding_window": False},
    "gemma2": {"model_type": "gemma2"},
    "gemma3": {"model_type": "gemma3_text", "sliding_window_pattern": 3},
    "cohere2": {"model_type": "cohere2"},
    "types in the file": {
        "model_type": "gpt_oss",
        "layer_types": ["full_attention"] * 5 + ["sliding_attention"] * 4,
    },
    "phi3": {"model_type": "phi3", "pad_token_id": 0},
}


def cache_of_transformers(config, seq):
    """Return the bytes of transformers' cache on the meta device."""
    made = hf_config(config, torch.bfloat16)
    heads = getattr(made, "num_key_value_heads", None) or made.num_attention_heads
    if config.model_type == "falcon":
        heads = made.num_kv_heads if made.new_decoder_architecture else 1
    width = getattr(made, "head_dim", None) or made.hidden_size // made.num_attention_heads
    cache = StaticCache(config=made, max_cache_len=seq)
    cache.early_initialization(1, heads, width, torch.bfloat16, "meta")
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


@pytest.mark.parametrize("seq", [100, 6000])
@pytest.mark.parametrize("name", KNOWN)
def test_a_published_models_cache_is_transformers_own(name, seq):
    config = peftmemory.load_config(name)
    assert cache_of_one(config, seq) == cache_of_transformers(config, seq)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_window_is_kept_where_the_file_says_so(name):
    config = peftmemory.load_config({**SLIDING, **VARIANTS[name]})
    for seq in (200, 5000):
        assert cache_of_one(config, seq) == cache_of_transformers(config, seq)


def test_latent_attention_keeps_one_vector_for_all_heads():
    found = serve("deepseek-v2-lite", batch=2, seq=1000)
    assert (
        found.kinds["kv_cache"] == 2 * 1000 * 27 * (512 + 64) * 2
    )  # DeepSeek-AI, 2024: d_c + d_h^R
    assert "latent" in found.notes[-1]


def test_adapters_stand_side_by_side_as_peft_has_them():
    config = peftmemory.load_config(TOY)
    lora = peftmemory.method("lora", r=4, target_modules=("q_proj", "v_proj"))
    base = build_base(config, peftmemory.StepSetting(batch=1, seq=1), device="cpu")
    real = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    model = get_peft_model(base, real, adapter_name="first")
    for name in ("second", "third"):
        model.add_adapter(name, real)
    size = sum(p.nbytes for name, p in model.named_parameters() if "lora_" in name)
    found = serve(config, batch=1, seq=8, adapters=3, method=lora, adapter_bytes=4)
    assert found.kinds["adapters"] == size
    assert found.kinds["weights"] == sum(
        t.nbytes for name, t in [*model.named_parameters(), *model.named_buffers()]
        if "lora_" not in name and "original_inv_freq" not in name
    ) + 32  # fmt: skip


@pytest.mark.parametrize("inner", [704, 1408, 2816])
def test_reading_the_prompts_needs_what_a_traced_forward_pass_needs(inner):
    raw = {**TOY, "hidden_size": 256, "intermediate_size": inner, "num_hidden_layers": 4}
    config, setting = peftmemory.load_config(raw), peftmemory.StepSetting(batch=4, seq=256)
    with quiet():
        model = build_base(config, setting, device="meta").eval()
        live = LiveStorages()
        with FakeTensorMode(allow_non_fake_inputs=True), live, torch.no_grad():
            materialise(model)
            ids = torch.zeros(4, 256, dtype=torch.long)
            live.name([*model.parameters(), *model.buffers()], "frozen_weights")
            live.enter("forward")
            out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
            peak = sum(live.peaks["forward"].values())
            del out
    assert serve(config, batch=4, seq=256).peak == pytest.approx(peak, rel=0.02)


def test_weights_without_a_formula_are_counted_by_building_the_class():
    raw = {**SLIDING, "model_type": "gemma2", "vocab_size": 96}
    config = peftmemory.load_config(raw)
    built = build_base(
        config, peftmemory.StepSetting(batch=1, seq=1, attention="eager"), device="meta"
    )
    assert parameters_of(config) == sum(p.numel() for p in built.parameters())


def test_a_committed_sheet_spares_the_building(monkeypatch):
    monkeypatch.setattr("peftmemory.tracing.build.build_base", None)
    assert parameters_of(peftmemory.load_config("mixtral-8x7b")) == 46_702_792_704


def test_one_more_sequence_than_the_most_fits_no_longer():
    most = most_sequences("llama-3.1-8b", card_gib=24, seq=4096, prefill=4096)
    for key, good in (("fits", {"fits"}), ("may fit", {"fits", "uncertain"})):
        words = [
            verdict(serve("llama-3.1-8b", batch=n, seq=4096, prefill=4096).peak, 24)
            for n in (most[key], most[key] + 1)
        ]
        assert words[0] in good and words[1] not in good


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"model": "t5-base"}, "No formula knows the cache of t5"),
        ({"model": "bert-base"}, "No formula knows the cache of bert"),
        ({"seq": 0}, "seq must be a whole number of at least 1"),
        ({"adapters": -1}, "adapters must be a whole number of at least 1"),
        ({"adapters": 2, "method": "full"}, "need a method such as lora"),
        ({"model": "gpt2", "precision": "nf4"}, "NF4 weights of gpt2 have no formula"),
        ({"precision": "int4"}, "precision must be one of"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_sentence(asked, sentence):
    with pytest.raises(EstimateError, match=sentence):
        serve(**{"model": TOY, **asked})


def test_every_cached_family_is_known_to_transformers():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert {*CACHED, *serving.LATENT} <= set(CONFIG_MAPPING_NAMES)
