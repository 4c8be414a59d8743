"""Tiny random models of every architecture the bottleneck adapters know, for their tests."""

import torch
import transformers
from torch import nn

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
SPECIAL = {
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 40},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
}
SPECIAL["mt5"] = SPECIAL["t5"]
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gpt2")
SEQ2SEQ = ("t5", "mt5")
TASK_TYPES = {
    **dict.fromkeys(ENCODERS, "SEQ_CLS"),
    **dict.fromkeys(DECODERS, "CAUSAL_LM"),
    **dict.fromkeys(SEQ2SEQ, "SEQ_2_SEQ_LM"),
}
_CLASSES = {
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "CAUSAL_LM": transformers.AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": transformers.AutoModelForSeq2SeqLM,
}


def tiny(kind: str, **changes) -> nn.Module:
    """Build a frozen tiny model in eval mode, the same for the same arguments."""
    options = {
        "vocab_size": 64,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "head_dim": 8,
        "num_key_value_heads": 2,
        "decoder_start_token_id": 1,
        **(SPECIAL.get(kind) or SMALL),
        **changes,
    }
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(kind, **options)
    model = _CLASSES[TASK_TYPES[kind]].from_config(config)
    # torch picks another attention kernel where a weight needs a gradient: freeze, as peft does,
    # or the base and the adapted model differ in the last bit for a reason of their own.
    return model.requires_grad_(False).eval()


def batch(kind: str) -> dict[str, torch.Tensor]:
    """Return inputs of two rows with labels."""
    ids = torch.randint(3, 64, (2, 9), generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([0, 1]) if kind in ENCODERS else ids
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def logits(model: nn.Module, kind: str) -> torch.Tensor:
    """Return the model's logits on ``batch(kind)``."""
    with torch.no_grad():
        return model(**batch(kind)).logits


def train_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight of the active adapter a random value, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "bottleneck_" in name and parameter.requires_grad:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model
