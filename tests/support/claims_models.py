"""Small models for the claims that are put to the libraries again, and notebook 06's tools."""

from functools import cache
from statistics import NormalDist

import bitsandbytes as bnb
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from pefthelpers import kitchen, models, training
from support.cells import Cells

IDS = torch.arange(3, 19).reshape(2, 8)
LINEAR = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}


@cache
def kitchen_decoder():
    """Return the kitchen decoder, its tokenizer, and a batch of ELICIT."""
    base, tokenizer = models.load("decoder")
    encoded = training.encode(tokenizer, kitchen.elicit(0).train[:16])
    return base, tokenizer, training.collate(tokenizer, encoded)


def llama(dtype=torch.float32):
    """Return a small random Llama, the same each time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)
    return LlamaForCausalLM(config).to(dtype).eval()


def roberta():
    """Return a small random RoBERTa classifier, the same each time."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    return RobertaForSequenceClassification(RobertaConfig(**sizes, num_attention_heads=2)).eval()


def tuned(model, seed=0, name="default"):
    """Return a model with a LoRA whose ``B`` is not zero, as if it had been trained."""
    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=16, init_lora_weights=False, **LINEAR)
    return get_peft_model(model, config, adapter_name=name).eval()


@torch.no_grad()
def logits(model, **options):
    """Return a model's logits for the ids of every test."""
    return model(input_ids=IDS, **options).logits


def gap(a, b):
    """Return the largest absolute difference."""
    return (a - b).abs().max().item()


@cache
def four_bits():
    """Return ``nf4_levels`` of notebook 06, ``rounding`` and ``state_bytes`` of its companion 06b."""
    known = {"torch": torch, "nn": nn, "bnb": bnb, "NormalDist": NormalDist}
    for stem, names in {
        "06_qlora": ("bits", "nf4_levels", "quantise"),
        "06b_qlora_in_depth": ("rounding", "state_bytes"),
    }.items():
        book = Cells(stem)
        book.namespace |= known
        book.run(*(f"define-{name}" for name in names))
        known |= book.namespace
    return known
