"""Small models with adapters of every method, right and wrong ones, for the guards' tests."""

import copy

import torch
import transformers
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftType, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

import peftbottleneck  # noqa: F401 - makes adapters known to PEFT
import peftguards
from support.bottleneck_models import tiny

QV = ["q_proj", "v_proj"]
FOUR = {"num_virtual_tokens": 4}
# What a method's configuration needs beside r = 4 and the targets q and v, where it has these.
OWN = {
    "ADALORA": {"total_step": 10},
    "ADAMSS": {"num_subspaces": 2},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1, "target_modules": None},
    "BOFT": {"boft_block_size": 8},
    "BOTTLENECK": {"reduction_factor": 4, "target_modules": None},
    "C3A": {"block_size": 16},
    "CARTRIDGE": FOUR | {"num_frozen_tokens": 1},
    "CPT": {"cpt_token_ids": [3] * 4, "cpt_mask": [1] * 4, "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "FOURIERFT": {"n_frequency": 50},
    "IA3": {"target_modules": ["down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "OFT": {"oft_block_size": 8, "r": 0},
    "POLY": {"n_tasks": 1, "n_skills": 2, "n_splits": 1},
    "PREFIX_TUNING": FOUR,
    "PROMPT_TUNING": FOUR,
    "P_TUNING": FOUR | {"encoder_hidden_size": 16},
    "MULTITASK_PROMPT_TUNING": FOUR | {"num_tasks": 1},
    "SHADOW": {"target_modules": None},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6], "target_modules": ["embed_tokens"]},
    "UNILORA": {"theta_d_length": 64},
    "VBLORA": {"num_vectors": 8, "vector_length": 16},
    "WAVEFT": {"n_frequency": 50},
}
# Every type of PEFT's that one call makes: XLora mixes adapters that are trained already.
METHODS = [str.__str__(kind) for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind != "XLORA"]
VARIANTS = {
    "rsLoRA": ("LORA", {"use_rslora": True}),
    "DoRA": ("LORA", {"use_dora": True}),
    "LoRA with biases": ("LORA", {"bias": "lora_only"}),
}
TASKS = dict.fromkeys(("bert", "roberta", "distilbert"), "SEQ_CLS") | {"t5": "SEQ_2_SEQ_LM"}
QUERIES = {"bert": "query", "roberta": "query", "distilbert": "q_lin", "t5": "q", "gpt2": "c_attn"}
IDS = torch.arange(3, 43).reshape(4, 10)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64}
SMALL |= {"intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def base(seed=0, **changes):
    """Return a small random Llama whose head is tied to its embeddings."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**sizes | {"pad_token_id": 0} | changes)).eval()


def of(kind, family, **sizes):
    """Return a small random model of one of transformers' automatic classes."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL | sizes)
    return getattr(transformers, f"AutoModel{kind}").from_config(config)


def mixtral():
    """Return a small random mixture of experts, whose experts are fused."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 2}
    return MixtralForCausalLM(MixtralConfig(**sizes, bos_token_id=1, eos_token_id=2))


def wrap(method="LORA", model=None, *, name="default", **options):
    """Put an adapter of a method on a model: a type of PEFT's, or one of ``VARIANTS``."""
    method, more = VARIANTS.get(method, (method, {}))
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[method]
    usual = {"r": 4, "target_modules": QV, "task_type": "CAUSAL_LM"}
    usual = {key: value for key, value in usual.items() if key in kind.__dataclass_fields__}
    torch.manual_seed(1)
    config = kind(**usual | OWN.get(method, {}) | more | options)
    return get_peft_model(base() if model is None else model, config, name)


def step(model, parameters=None, *, steps=1, lr=1e-2, inputs=None):
    """Train a model for some steps on four rows of tokens, or on these inputs."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted if parameters is None else parameters, lr, weight_decay=0)
    inputs = dict(inputs or {"input_ids": IDS, "labels": IDS})
    kinds = {config.peft_type for config in getattr(model, "peft_config", {}).values()}
    if kinds & {PeftType.POLY, PeftType.MULTITASK_PROMPT_TUNING}:
        inputs["task_ids"] = torch.zeros(len(inputs["input_ids"]), dtype=torch.long)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    return model


def trained(method="LORA", model=None, **options):
    """Return a model with an adapter of a method after two steps."""
    return step(wrap(method, model, **options), steps=2).eval()


@torch.no_grad()
def merges(model):
    """Tell whether peft can merge the active adapters, and answers stay as they were."""
    try:
        after = copy.deepcopy(model).merge_and_unload()(IDS).logits
        return torch.allclose(after, model(IDS).logits, rtol=1e-3, atol=1e-3)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False


def classifier(kind, **options):
    """Return LoRA on the queries of another model: three that classify, a T5, a GPT-2."""
    options = {"target_modules": [QUERIES[kind]]} | options
    return wrap("LORA", tiny(kind), **{"task_type": TASKS.get(kind, "CAUSAL_LM")} | options)


def second(model, active=("default", "second"), **options):
    """Add a second LoRA with weights to a model, and make these active."""
    lora = LoraConfig(r=4, target_modules=QV, init_lora_weights=False, **options)
    model.add_adapter("second", lora)
    model.base_model.set_adapter(active)
    return model


@torch.no_grad()
def spoil(model, mark, change):
    """Change in place all weights whose name holds a mark."""
    for name, parameter in model.named_parameters():
        if mark in name:
            parameter.copy_(change(parameter))
    return model


def times(factor):
    """Return the change that multiplies."""
    return lambda p: p * factor


def unfrozen(mark, model=None):
    """Return a LoRA model that trains the base's weights of this name too."""
    model = wrap() if model is None else model
    for name, parameter in model.named_parameters():
        parameter.requires_grad |= mark in name
    return model


def sized(ratio, dtype=torch.bfloat16, **options):
    """Return a trained LoRA on a base in a dtype, each correction this share of its weight's norm."""
    model = trained(model=base().to(dtype), **options)
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            name = layer.active_adapters[0]
            now = layer.get_delta_weight(name).float().norm() / layer.get_base_layer().weight.norm()
            layer.scaling[name] *= ratio / now.item()
    return model


def merged(method="LORA", **options):
    """Return a base with an adapter merged into it."""
    return trained(method, **options).merge_and_unload()


def nf4(weight, *, packs=False, quant_type="nf4", **options):
    """Return a linear layer in 4 bits."""
    import bitsandbytes as bnb

    new = bnb.nn.Linear4bit(weight.shape[1], weight.shape[0], bias=False, quant_type=quant_type)
    options |= {"requires_grad": False, "quant_type": quant_type, "module": new}
    new.weight = bnb.nn.Params4bit(weight, **options).to("cpu")
    new.support_avx512bf16_for_cpu = packs
    return new


def four_bit(model, **options):
    """Return a copy with the blocks' linear layers in NF4, as bitsandbytes loads them."""
    return _changed(model, lambda old: nf4(old.weight.data, **options), nn.Linear)


def dequantised(model):
    """Return a copy whose 4-bit layers are linear layers of what they stood for."""
    import bitsandbytes as bnb
    from bitsandbytes.functional import dequantize_4bit

    def plain(old):
        new = nn.Linear(old.in_features, old.out_features, bias=False)
        new.weight.data = dequantize_4bit(old.weight.data, old.weight.quant_state)
        return new

    return _changed(model, plain, bnb.nn.Linear4bit)


def eight_bit(model):
    """Return a copy with the blocks' linear layers as LLM.int8 holds them."""
    import bitsandbytes as bnb

    def int8(old):
        scales = old.weight.data.abs().amax(1)
        codes = (old.weight.data * 127 / scales[:, None]).round().to(torch.int8)
        new = copy.deepcopy(old)
        new.weight = bnb.nn.Int8Params(codes, requires_grad=False)
        new.weight.SCB = scales
        return new

    return _changed(model, int8, nn.Linear)


def _changed(model, change, kind):
    """Return a copy of a model with each layer of a kind in its blocks changed."""
    model = copy.deepcopy(model)
    for parent in [m for n, m in model.named_modules() if n.endswith(("self_attn", "mlp"))]:
        for name, old in [(n, m) for n, m in parent.named_children() if isinstance(m, kind)]:
            setattr(parent, name, change(old))
    return model


def offloaded(model, folder=None):
    """Offload all weights of a model to the CPU, or to a folder, as accelerate does."""
    from accelerate import cpu_offload, disk_offload

    if folder is None:
        return cpu_offload(model, execution_device=torch.device("cpu"))
    return disk_offload(model, folder, execution_device=torch.device("cpu"))


def folder(tmp, model):
    """Save an adapter, sign it, and return its folder."""
    place = tmp / f"adapter{sum(1 for _ in tmp.iterdir())}"
    model.save_pretrained(place)
    peftguards.sign(place, model)
    return place


def after(model, train=step, **options):
    """Return the arguments of check_training, after training."""
    before = peftguards.snapshot(model)
    train(model, **options)
    return model, before


RENAMED = {
    "of a compiled model": lambda k: k.replace("model.model.", "model._orig_mod.model."),
    "of a distributed model": lambda k: k.replace("base_model.", "base_model.module."),
    "without prefix": lambda k: k.removeprefix("base_model.model."),
    "with the adapter's name": lambda k: k.replace(".weight", ".default.weight"),
}


def rewritten(place, change):
    """Change the tensors of a saved adapter; return its folder."""
    file = place / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)
    return place


def renamed(place, change):
    """Change the keys of a saved adapter; return its folder."""
    return rewritten(place, lambda state: {change(key): value for key, value in state.items()})
