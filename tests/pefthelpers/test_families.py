"""The loop and the measures on models and tokenizers of many families, as people bring them."""

import copy

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig

from pefthelpers import measure, training
from pefthelpers.data import Example
from pefthelpers.errors import UserError

LENGTHS = (3, 1, 4, 2, 5, 3)  # of the prompts, in words
EXAMPLES = [
    Example(" ".join(f"w{i + j}" for j in range(n)), f"w{i}") for i, n in enumerate(LENGTHS)
]
SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES |= {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 64}
SIZES |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 0}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "forced_eos_token_id": 1}
BART |= {
    f"{side}_{name}": n
    for side in ("encoder", "decoder")
    for name, n in (("attention_heads", 4), ("ffn_dim", 48))
}
FAMILIES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 4},
    "gpt_neox": {"rotary_pct": 0.5},
    "falcon": {"new_decoder_architecture": False},
    "mistral": {},
    "qwen2": {},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {},
    "t5": T5,
    "bart": BART,
}  # fmt: skip


def tiny(family, **sizes):
    """Return a small random model of a family, with its language modelling head."""
    config = AutoConfig.for_model(family, **SIZES | FAMILIES[family] | sizes)
    kind = "Seq2SeqLM" if config.is_encoder_decoder else "CausalLM"
    torch.manual_seed(0)
    return getattr(transformers, f"AutoModelFor{kind}").from_config(config).eval()


@pytest.fixture
def bare(word_tokenizer):
    """Return a function that makes a tokenizer without these special tokens."""

    def without(*names):
        tokenizer = copy.deepcopy(word_tokenizer)
        for name in names:
            setattr(tokenizer, name, None)
        return tokenizer

    return without


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_is_measured_and_generates(family, bare):
    """Padding with any token changes nothing: masks and labels come from lengths."""
    model, tokenizer = tiny(family), bare("pad_token")
    lora = LoraConfig(target_modules="all-linear", r=4, init_lora_weights=False)
    model = get_peft_model(model, lora)
    losses = training.fit(model, tokenizer, EXAMPLES, learning_rate=1e-2, steps=12, batch_size=4)
    assert losses[-1] < losses[0]
    loss = measure.mean_loss(model, tokenizer, EXAMPLES)
    alone = [measure.mean_loss(model, tokenizer, EXAMPLES, batch_size=n) for n in (1, 4)]
    assert alone == pytest.approx([loss, loss], rel=1e-4)
    options = {"max_new_tokens": 2}
    together = measure.generate(model, tokenizer, EXAMPLES, **options)
    assert together == measure.generate(model, tokenizer, EXAMPLES, batch_size=1, **options)
    assert 0 <= measure.exact_match(model, tokenizer, EXAMPLES) <= 1


@pytest.mark.parametrize("missing", [("pad_token",), ("pad_token", "unk_token")])
def test_any_id_pads(bare, word_tokenizer, missing):
    batches = [
        training.collate(t, training.encode(t, EXAMPLES)) for t in (bare(*missing), word_tokenizer)
    ]
    for name in ("attention_mask", "labels"):
        assert torch.equal(batches[0][name], batches[1][name])
    seen = batches[0]["attention_mask"].bool()
    assert torch.equal(batches[0]["input_ids"][seen], batches[1]["input_ids"][seen])
    assert not seen.all()


def test_a_tokenizer_without_an_end_is_refused_in_a_sentence(bare):
    model, tokenizer = tiny("mistral"), bare("pad_token", "eos_token")
    for call in (
        lambda: training.encode(tokenizer, EXAMPLES),
        lambda: training.fit(model, tokenizer, EXAMPLES, learning_rate=1e-3, steps=1),
        lambda: measure.mean_loss(model, tokenizer, EXAMPLES),
        lambda: measure.generate(tiny("t5"), tokenizer, EXAMPLES),
    ):
        with pytest.raises(UserError, match="no end-of-sequence token, .* set tokenizer.eos_token"):
            call()
    assert len(measure.generate(model, tokenizer, EXAMPLES, max_new_tokens=2)) == len(EXAMPLES)
