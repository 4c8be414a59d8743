"""Recompute the article's memory table for 7B, its 70B arithmetic, and the figures of claims 1-14.

Closed form alone: seconds on any machine, no torch. Writes ``data/results/memory_claims.json``.
"""

from datetime import datetime, timezone
from typing import Any

import peftmemory
from pefthelpers import results
from pefthelpers.paths import data_dir

SEVEN, SEVENTY = "llama-2-7b", "llama-3.1-70b"
LORA_QV = peftmemory.method("lora", r=8, target_modules=("q_proj", "v_proj"))
LORA_ALL = peftmemory.method("lora", r=16, target_modules="all-linear")
LORA_64 = peftmemory.method("lora", r=64, target_modules="all-linear")
PREFIX, HOULSBY = peftmemory.method("prefix", num_virtual_tokens=30), peftmemory.method("houlsby")
STEP = {"batch": 1, "seq": 2048, "optimizer": "adamw_torch_fused"}
MIXED = {"precision": "fp32", "autocast": True}
SMALL_STEP = {"batch": 1, "seq": 512, "optimizer": "adamw_torch_fused"}


def gb(model: str, method: Any = "full", **options) -> float:
    """Return a step's peak in GB (1e9 bytes), at one sequence of 2,048 tokens."""
    return round(peftmemory.estimate(model, method, **{**STEP, **options}).peak / 1e9, 1)


def counted(model: str, method: Any) -> dict[str, float]:
    """Return what a method trains: parameters, percent, megabytes of its file in 32 and 16 bits."""
    found = peftmemory.parameters(model, method)
    size = found.trainable
    return {
        "trained": size,
        "percent": round(100 * found.share, 4),
        "fp32_mb": round(4 * size / 1e6, 1),
        "bf16_mb": round(2 * size / 1e6, 1),
    }


CKPT = {"checkpointing": True}
# The article's four rows for a 7B model: what is behind each figure, as (method, options).
SEVEN_STEPS: dict[str, dict[str, tuple[Any, dict[str, Any]]]] = {
    "full fine-tuning": {
        "bf16": ("full", {}),
        "bf16, checkpointing": ("full", CKPT),
        "bf16, 8-bit Adam, checkpointing": ("full", {"optimizer": "adamw_8bit", **CKPT}),
        "mixed precision, checkpointing": ("full", {**MIXED, **CKPT}),
        "mixed precision, accumulation, checkpointing": (
            "full",
            {**MIXED, **CKPT, "accumulation": True},
        ),
    },
    "LoRA": {
        "r=8 q,v, checkpointing": (LORA_QV, CKPT),
        "r=8 q,v": (LORA_QV, {}),
        "r=16 all-linear, checkpointing": (LORA_ALL, CKPT),
        "r=16 all-linear": (LORA_ALL, {}),
        "r=8 q,v, eager attention": (LORA_QV, {"attention": "eager"}),
    },
    "prefix tuning": {"30 tokens": (PREFIX, {})},
    "adapters": {
        "Houlsby, reduction 16": (HOULSBY, {}),
        "Houlsby, reduction 16, checkpointing": (HOULSBY, CKPT),
    },
}
ARTICLE = {
    "full fine-tuning": "100 %; 80-120 GB; a full copy per task",
    "LoRA": "0.1-1 %; 16-24 GB; 10-50 MB",
    "prefix tuning": "about 0.1 %; about 18 GB; 5-20 MB",
    "adapters": "0.5-3 %; 20-30 GB; 20-80 MB",
}
QLORA = {
    **SMALL_STEP,
    "precision": "nf4",
    "loss": "chunked",
    "autocast_adapter_dtype": False,
    **CKPT,
}
# The steps of the article's 70B arithmetic, as (model, method, options).
SEVENTY_STEPS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "full_bf16_step_gb": (SEVENTY, "full", {**SMALL_STEP, **CKPT}),
    "lora_bf16_gb": (SEVENTY, LORA_ALL, {**SMALL_STEP, **CKPT}),
    "qlora_gb": (SEVENTY, LORA_ALL, QLORA),
    "llama_65b_qlora_r64_gb": ("llama-65b", LORA_64, QLORA),
}


def seven_billion() -> dict[str, Any]:
    """Return the article's four rows for a 7B model, recomputed, with the setting of each figure."""
    counts = {
        "full fine-tuning": counted(SEVEN, "full"),
        "LoRA": {
            "r=8 q,v": counted(SEVEN, LORA_QV),
            "r=16 all-linear": counted(SEVEN, LORA_ALL),
            "r=64 all-linear": counted(SEVEN, LORA_64),
        },
        "prefix tuning": {
            "30 tokens": counted(SEVEN, PREFIX),
            "30 tokens, llama-3.1-8b": counted("llama-3.1-8b", PREFIX),
        },
        "adapters": {
            "Houlsby, reduction 16": counted(SEVEN, HOULSBY),
            "Houlsby, reduction 16, roberta-base": counted("roberta-base", HOULSBY),
        },
    }
    return {
        row: {
            "article": ARTICLE[row],
            "counts": counts[row],
            "peaks_gb": {
                label: gb(SEVEN, method, **options) for label, (method, options) in steps.items()
            },
        }
        for row, steps in SEVEN_STEPS.items()
    }


def seventy_billion() -> dict[str, Any]:
    """Return the article's 70B arithmetic, recomputed."""
    base = peftmemory.parameters(SEVENTY).base
    return {
        "weights_16_bit_gb": round(2 * base / 1e9, 1),
        "full_bf16_states_gb": round(8 * base / 1e9, 1),
        "full_mixed_precision_states_gb": [round(16 * base / 1e9), round(18 * base / 1e9)],
        **{name: gb(model, method, **o) for name, (model, method, o) in SEVENTY_STEPS.items()},
        "nf4_weights_gb": round(weights_gb(SEVENTY), 1),
    }


def weights_gb(model: str) -> float:
    """Return a model's NF4 weights with double quantisation, 16-bit embeddings included."""
    found = peftmemory.estimate(model, LORA_QV, precision="nf4", **SMALL_STEP)
    return found.kinds["frozen_weights"] / 1e9


def filed(model: str, method: Any) -> str:
    """Return a method's share and the size of its file in the 32 bits PEFT saves, in words."""
    found = counted(model, method)
    return f"{found['percent']:.3g} %, {found['fp32_mb']:.3g} MB"


def operations(tokens: float) -> str:
    """Return the operations of training the 7B model on ``tokens``: 6 per parameter and token."""
    return f"{6 * peftmemory.parameters(SEVEN).base * tokens:.1e} operations"


def figures(seven: dict[str, Any], seventy: dict[str, Any]) -> dict[int, dict[str, str]]:
    """Return the figures behind claims 1 to 14 of the ledger, ``data/claims.yaml``, by claim."""
    peaks = lambda row: {f"7B, {k}": f"{v} GB" for k, v in seven[row]["peaks_gb"].items()}
    gigabytes = lambda name: f"{seventy[name]:.1f} GB"
    percent = lambda *what: f"{counted(*what)['percent']:.2g} %"
    gpt3_r4 = 2 * (2 * 96) * 12288 * 4  # two matrices in 96 layers, rank 4 (Hu et al., section 4)
    gpt3_share = f"{100 * gpt3_r4 / peftmemory.parameters('gpt-3').base:.2g} %"
    low, high = seventy["full_mixed_precision_states_gb"]
    return {
        1: {"2 trillion tokens": operations(2e12), "10 million tokens": operations(1e7)},
        2: {"GPT-3 r=4 q,v": gpt3_share, "70B r=8 q,v": percent(SEVENTY, LORA_QV),
            "8B r=64 all-linear": percent("llama-3.1-8b", LORA_64)},
        3: {"70B weights": gigabytes("weights_16_bit_gb")},
        4: {"70B, bf16": gigabytes("full_bf16_states_gb"),
            "70B, mixed precision": f"{low} to {high} GB"},
        5: {"70B, LoRA": gigabytes("lora_bf16_gb"), "70B, QLoRA": gigabytes("qlora_gb")},
        6: {"70B, NF4 weights": gigabytes("nf4_weights_gb")},
        7: {"65B QLoRA r=64": gigabytes("llama_65b_qlora_r64_gb")},
        9: peaks("full fine-tuning"),
        10: peaks("LoRA"),
        11: {"7B, prefix, 30 tokens": f"{seven['prefix tuning']['peaks_gb']['30 tokens']} GB",
             **peaks("adapters")},
        12: {"7B, r=8 q,v": filed(SEVEN, LORA_QV), "7B, r=16 all-linear": filed(SEVEN, LORA_ALL)},
        13: {"7B, 30 tokens": filed(SEVEN, PREFIX), "8B, 30 tokens": filed("llama-3.1-8b", PREFIX)},
        14: {"Houlsby, 7B": filed(SEVEN, HOULSBY),
             "Houlsby, roberta-base": filed("roberta-base", HOULSBY)},
    }  # fmt: skip


def main() -> None:
    """Compute and write."""
    seven, seventy = seven_billion(), seventy_billion()
    result = {
        "what": __doc__.splitlines()[0],
        "setting": "GB are 1e9 bytes; 7B: Llama-2-7B, one sequence of 2,048 tokens, fused AdamW,"
        " plain loss; 70B and 65B: one sequence of 512 tokens, checkpointing",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seven_billion": seven,
        "seventy_billion": seventy,
        "figures": figures(seven, seventy),
    }
    results.write(data_dir() / "results" / "memory_claims.json", result)


if __name__ == "__main__":
    main()
