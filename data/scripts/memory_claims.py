"""Recompute the article's memory table for 7B, its 70B arithmetic, and the verdicts on claims 1-14.

Closed form alone: seconds on any machine, no torch. Writes ``data/results/memory_claims.json``.
"""

import json
from datetime import datetime, timezone
from typing import Any

from pefthelpers import memory
from pefthelpers.paths import atomic_path, data_dir

SEVEN, SEVENTY = "llama-2-7b", "llama-3.1-70b"
LORA_QV = memory.method("lora", r=8, target_modules=("q_proj", "v_proj"))
LORA_ALL = memory.method("lora", r=16, target_modules="all-linear")
STEP = {"batch": 1, "seq": 2048, "optimizer": "adamw_torch_fused"}
MIXED = {"precision": "fp32", "autocast": True}
SMALL_STEP = {"batch": 1, "seq": 512, "optimizer": "adamw_torch_fused"}


def gb(model: str, method: Any = "full", **options) -> float:
    """Return a step's peak in GB (1e9 bytes), at one sequence of 2,048 tokens."""
    return round(memory.estimate(model, method, **{**STEP, **options}).peak / 1e9, 1)


def counted(model: str, method: Any) -> dict[str, float]:
    """Return what a method trains: parameters, percent, megabytes of its file in 32 and 16 bits."""
    found = memory.parameters(model, method)
    size = found.trainable
    return {
        "trained": size,
        "percent": round(100 * found.share, 4),
        "fp32_mb": round(4 * size / 1e6, 1),
        "bf16_mb": round(2 * size / 1e6, 1),
    }


def seven_billion() -> dict[str, Any]:
    """Return the article's four rows for a 7B model, recomputed, with the setting of each figure."""
    checkpointed = {"checkpointing": True}
    prefix, houlsby = memory.method("prefix", num_virtual_tokens=30), memory.method("houlsby")
    everywhere = memory.method("lora", r=64, target_modules="all-linear")
    return {
        "full fine-tuning": {
            "article": "100 %; 80-120 GB; a full copy per task",
            "counts": counted(SEVEN, "full"),
            "peaks_gb": {
                "bf16": gb(SEVEN),
                "bf16, checkpointing": gb(SEVEN, **checkpointed),
                "bf16, 8-bit Adam, checkpointing": gb(
                    SEVEN, optimizer="adamw_8bit", **checkpointed
                ),
                "mixed precision, checkpointing": gb(SEVEN, **MIXED, **checkpointed),
                "mixed precision, accumulation, checkpointing": gb(
                    SEVEN, **MIXED, **checkpointed, accumulation=True
                ),
            },
        },
        "LoRA": {
            "article": "0.1-1 %; 16-24 GB; 10-50 MB",
            "counts": {
                "r=8 q,v": counted(SEVEN, LORA_QV),
                "r=16 all-linear": counted(SEVEN, LORA_ALL),
                "r=64 all-linear": counted(SEVEN, everywhere),
            },
            "peaks_gb": {
                "r=8 q,v, checkpointing": gb(SEVEN, LORA_QV, **checkpointed),
                "r=8 q,v": gb(SEVEN, LORA_QV),
                "r=16 all-linear, checkpointing": gb(SEVEN, LORA_ALL, **checkpointed),
                "r=16 all-linear": gb(SEVEN, LORA_ALL),
                "r=8 q,v, eager attention": gb(SEVEN, LORA_QV, attention="eager"),
            },
        },
        "prefix tuning": {
            "article": "about 0.1 %; about 18 GB; 5-20 MB",
            "counts": {
                "30 tokens": counted(SEVEN, prefix),
                "30 tokens, llama-3.1-8b": counted("llama-3.1-8b", prefix),
            },
            "peaks_gb": {"30 tokens": gb(SEVEN, prefix)},
        },
        "adapters": {
            "article": "0.5-3 %; 20-30 GB; 20-80 MB",
            "counts": {
                "Houlsby, reduction 16": counted(SEVEN, houlsby),
                "Houlsby, reduction 16, roberta-base": counted("roberta-base", houlsby),
            },
            "peaks_gb": {
                "Houlsby, reduction 16": gb(SEVEN, houlsby),
                "Houlsby, reduction 16, checkpointing": gb(SEVEN, houlsby, **checkpointed),
            },
        },
    }


def seventy_billion() -> dict[str, Any]:
    """Return the article's 70B arithmetic, recomputed."""
    base = memory.parameters(SEVENTY).base
    qlora = {"precision": "nf4", "checkpointing": True, "loss": "chunked"}
    tight = {**SMALL_STEP, "autocast_adapter_dtype": False}
    return {
        "weights_16_bit_gb": round(2 * base / 1e9, 1),
        "full_bf16_states_gb": round(8 * base / 1e9, 1),
        "full_mixed_precision_states_gb": [round(16 * base / 1e9), round(18 * base / 1e9)],
        "full_bf16_step_gb": gb(SEVENTY, checkpointing=True, **SMALL_STEP),
        "lora_bf16_gb": gb(SEVENTY, LORA_ALL, checkpointing=True, **SMALL_STEP),
        "qlora_gb": gb(SEVENTY, LORA_ALL, **qlora, **tight),
        "nf4_weights_gb": round(weights_gb(SEVENTY), 1),
        "llama_65b_qlora_r64_gb": gb(
            "llama-65b",
            memory.method("lora", r=64, target_modules="all-linear"),
            **qlora,
            **tight,
        ),
    }


def weights_gb(model: str) -> float:
    """Return a model's NF4 weights with double quantisation, 16-bit embeddings included."""
    found = memory.estimate(model, LORA_QV, precision="nf4", **SMALL_STEP)
    return found.kinds["frozen_weights"] / 1e9


def verdicts(seven: dict[str, Any], seventy: dict[str, Any]) -> list[dict[str, Any]]:
    """Return claims 1-14: true, true only under a condition, false, or unsupported; figures."""
    full, lora = seven["full fine-tuning"]["peaks_gb"], seven["LoRA"]
    prefix, adapters = seven["prefix tuning"], seven["adapters"]
    gpt3_r4 = 2 * (2 * 96) * 12288 * 4  # two matrices in 96 layers, rank 4 (Hu et al., section 4)
    qlora = memory.method("lora", r=64, target_modules="all-linear")
    shares = {
        "GPT-3 r=4 q,v": round(100 * gpt3_r4 / memory.parameters("gpt-3").base, 4),
        "70B r=8 q,v": counted(SEVENTY, LORA_QV)["percent"],
        "8B r=64 all-linear": counted("llama-3.1-8b", qlora)["percent"],
    }
    rows = [
        (1, "full fine-tuning needs the memory and compute of pre-training", "only if",
         "per step, yes; in total, no: 6 x parameters x tokens, and a task has millions of tokens",
         {}),
        (2, "less than 0.1 % of the parameters, sometimes", "true", "", shares),
        (3, "70B in 16 bit is about 140 GB", "true", "", seventy["weights_16_bit_gb"]),
        (4, "full fine-tuning of 70B takes about 560 GB, eight A100-80", "only if",
         "8 bytes a parameter: all in bf16, no activations; mixed precision takes 16 to 18",
         [seventy["full_bf16_states_gb"], *seventy["full_mixed_precision_states_gb"]]),
        (5, "with LoRA the same model fits one A100", "false", "QLoRA fits a 48 GB card",
         {"LoRA": seventy["lora_bf16_gb"], "QLoRA": seventy["qlora_gb"]}),
        (6, "... or an RTX 4090", "false", "the 4-bit weights alone are above 24 GB",
         seventy["nf4_weights_gb"]),
        (7, "QLoRA: 70B on one consumer GPU", "false",
         "the paper: 65B on one 48 GB professional card (Dettmers et al., 2023)",
         seventy["llama_65b_qlora_r64_gb"]),
        (8, "PEFT protects against forgetting", "only if",
         "the base is there again with the adapter off; the adapted model forgets: notebook 02",
         {}),
        (9, "full fine-tuning of 7B: 80-120 GB", "only if", "mixed precision; not bf16", full),
        (10, "LoRA on 7B: 16-24 GB", "only if", "checkpointing or few targets",
         lora["peaks_gb"]),
        (11, "prefix tuning about 18 GB, adapters 20-30 GB", "unsupported",
         "a frozen base costs the same under every method; what differs is activations",
         {**prefix["peaks_gb"], **adapters["peaks_gb"]}),
        (12, "LoRA: 0.1-1 % and 10-50 MB at once", "false",
         "0.1-1 % of 7B are 13-135 MB in 16 bits, 27-270 MB in the 32 bits PEFT saves",
         lora["counts"]),
        (13, "prefix tuning: about 0.1 % and 5-20 MB", "only if",
         "the number of key/value heads decides", prefix["counts"]),
        (14, "adapters: 0.5-3 % and 20-80 MB at once", "false",
         "0.5-3 % of 7B are 67-404 MB in 16 bits", adapters["counts"]),
    ]  # fmt: skip
    names = ("claim", "says", "verdict", "because", "figures")
    return [dict(zip(names, row, strict=True)) for row in rows]


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
        "claims": verdicts(seven, seventy),
    }
    with atomic_path(data_dir() / "results" / "memory_claims.json") as path:
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
