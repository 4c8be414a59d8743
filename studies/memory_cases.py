"""The cases of the memory benchmark: models, methods and settings, and their names."""

from collections.abc import Iterator
from typing import Any

import peftbottleneck  # noqa: F401 - makes adapters known to PEFT
import peftmemory
from peftmemory.configs import read_sheet

QV = ["q_proj", "v_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
LORA_QV = {"name": "lora", "r": 8, "target_modules": QV}
LORA_ALL = {"name": "lora", "r": 16, "target_modules": "all-linear"}
TOY = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}
Case = tuple[Any, dict, int, int, dict]


def method_of(described: dict[str, Any]):
    """Return the method a row names."""
    options = {key: value for key, value in described.items() if key != "name"}
    if isinstance(options.get("target_modules"), list):
        options["target_modules"] = tuple(options["target_modules"])
    return peftmemory.method(described["name"], **options)


def cut(model: str, layers: int) -> dict[str, Any]:
    """Return a published model's configuration with fewer layers: the same shapes, traced sooner."""
    return {**read_sheet(model)["config"], "num_hidden_layers": layers}


def comparisons() -> Iterator[Case]:
    """Yield the cases of closed form against trace, beside the published rows at full depth.

    A case is a model and its number of layers, a method, batch, length and options.
    """
    ckpt, chunk = {"checkpointing": True}, {"loss": "chunked"}
    mixed = {"precision": "fp32", "autocast": True}
    kbit = {"precision": "nf4", "prepare_kbit": True}
    full, prefix = {"name": "full"}, {"name": "prefix", "num_virtual_tokens": 30}
    prompt, houlsby, pfeiffer = {"name": "prompt"}, {"name": "houlsby"}, {"name": "pfeiffer"}
    small, one = ("smollm2-135m", 4), ("llama-3.2-1b", 2)
    seven, eight, qwen = ("llama-2-7b", 2), ("llama-3.1-8b", 2), ("qwen3-0.6b", 2)
    whole = ("smollm2-135m", 30)
    yield (whole, full, 4, 512, {})
    yield (whole, full, 4, 512, {"precision": "fp32"})
    yield (whole, full, 4, 512, mixed)
    yield (whole, full, 4, 512, {**mixed, "accumulation": True})
    yield (whole, full, 4, 512, {**ckpt, **chunk})
    yield (whole, full, 8, 1024, {"attention": "eager"})
    yield (whole, LORA_ALL, 8, 1024, ckpt)
    yield (small, full, 1, 64, {**mixed, "accumulation": True, **ckpt})
    yield (small, full, 4, 512, {**mixed, **ckpt})
    yield (small, LORA_ALL, 2, 512, {"autocast": True})
    yield (small, LORA_ALL, 8, 1024, {**ckpt, **chunk})
    yield (small, houlsby, 4, 512, {})
    yield (small, pfeiffer, 4, 512, {})
    yield (small, pfeiffer, 4, 512, {**ckpt, **chunk})
    yield (small, {**LORA_ALL, "lora_dropout": 0.05}, 4, 512, {})
    yield (qwen, full, 2, 512, {"optimizer": "adamw_8bit"})
    yield (qwen, LORA_ALL, 2, 1024, {"padding": True})
    yield (one, full, 2, 1024, {"optimizer": "adamw_torch_fused"})
    yield (one, full, 2, 1024, {"optimizer": "adamw_8bit", **ckpt, **chunk})
    yield (one, full, 1, 256, {"accumulation": True})
    yield (one, LORA_ALL, 4, 1024, {"autocast_adapter_dtype": False})
    yield (one, LORA_ALL, 4, 1024, {"precision": "nf4", **ckpt, **chunk})
    yield (one, LORA_ALL, 2, 1024, {**kbit, **ckpt})
    yield (one, prefix, 4, 512, {})
    yield (one, prompt, 4, 512, {**ckpt, **chunk})
    yield (one, {"name": "ia3"}, 4, 512, {**ckpt, **chunk})
    yield (one, {**LORA_QV, "name": "dora"}, 4, 512, {**chunk})
    yield (seven, LORA_QV, 1, 2048, ckpt)
    yield (seven, LORA_QV, 1, 2048, {"attention": "eager"})
    yield (eight, full, 1, 2048, {"optimizer": "adamw_torch_fused", **ckpt})
    yield (eight, {**LORA_ALL, "r": 64}, 1, 2048, {"precision": "nf4", **ckpt, **chunk})
    yield (eight, {**LORA_ALL, "r": 64}, 1, 2048, {})


def key_of(case: Case) -> str:
    """Return a case in one line."""
    model, described, batch, seq, options = case
    name = "small Llama" if isinstance(model, dict) else model
    if isinstance(model, tuple):
        whole = peftmemory.load_config(model[0]).layers == model[1]
        name = model[0] if whole else f"{model[0]} ({model[1]} layers)"
    words = [f"{key}={value}" for key, value in options.items()]
    return " ".join([name, peftmemory.describe(method_of(described)), f"{batch}x{seq}", *words])


def measured_cases() -> list[Case]:
    """Return the cases that run here for real, at a size where a step takes seconds."""
    ckpt, nf4 = {"checkpointing": True}, {"precision": "nf4"}
    small = [
        (TOY, method, 4, 256, options)
        for method, options in [
            ({"name": "full"}, {}),
            ({"name": "full"}, {"precision": "fp32", "autocast": True}),
            ({"name": "full"}, {"optimizer": "adamw_8bit"}),
            (LORA_QV, {}),
            (LORA_ALL, {"padding": True}),
            ({**LORA_QV, "name": "dora"}, {}),
            ({"name": "prefix", "num_virtual_tokens": 30}, {}),
            ({"name": "prompt", "num_virtual_tokens": 30}, {}),
            ({"name": "ia3"}, {}),
            ({"name": "ln"}, {}),
            ({"name": "houlsby"}, {}),
            ({"name": "pfeiffer"}, {}),
        ]
    ]
    real = [
        ("smollm2-135m", method, 1, 128, options)
        for method, options in [
            ({"name": "full"}, {"precision": "fp32"}),
            ({"name": "full"}, {"precision": "fp32", **ckpt}),
            (LORA_ALL, {"precision": "fp32"}),
            (LORA_ALL, {"precision": "fp32", **ckpt}),
            (LORA_ALL, nf4),
            (LORA_ALL, {**nf4, **ckpt}),
        ]
    ]
    return [*small, *real]
