"""What a method's step needs on a real model, and what one task's file weighs there."""

from functools import cache
from typing import Any

import peftmemory
from pefthelpers.methods import METHODS, counted
from peftmemory.advice import PRECISIONS, covered_models
from peftmemory.errors import EstimateError

CARDS = (8, *peftmemory.CARDS_GIB)
# TRL's SFTTrainer as it comes: fused AdamW, gradient checkpointing, the chunked loss.
STEP = {"optimizer": "adamw_torch_fused", "checkpointing": True, "loss": "chunked"}
ADAPTED = {"precision": "bf16", "autocast": True}
SETTINGS: dict[str, dict[str, Any]] = {
    "full": PRECISIONS["mixed"],
    "full in bf16": PRECISIONS["bf16"],
    "qlora": {"precision": "nf4", "autocast": True, "autocast_adapter_dtype": False},
    "prefix": ADAPTED | {"checkpointing": False},
}
# Models that answer one kind of task, beside the decoders that can be put to any.
SPECIAL = {"roberta-base": "classify", "t5-base": "summarise"}


@cache
def model_names() -> tuple[str, ...]:
    """Return the models that the guide knows: decoders by size, then the special ones."""
    return (*covered_models(), *SPECIAL)


def described(method: str) -> Any:
    """Return what ``peftmemory`` counts of a method's configuration in its recipe."""
    return peftmemory.method(METHODS[method].family, **counted(method))


def step(method: str, batch: int = 1, seq: int = 1024) -> dict[str, Any]:
    """Return the fields of a method's step; ``full in bf16`` is full with less."""
    return STEP | ADAPTED | SETTINGS.get(method, {}) | {"batch": batch, "seq": seq}


@cache
def peak(model: str, method: str, batch: int = 1, seq: int = 1024) -> float | None:
    """Return the peak of a step in GiB; None where no formula covers it."""
    if model in SPECIAL:
        return None
    what = described(method.removesuffix(" in bf16"))
    return peftmemory.estimate(model, what, **step(method, batch, seq)).peak / peftmemory.GIB


@cache
def task_bytes(model: str, method: str) -> int | None:
    """Return the size of one task's file: float32 for what is added, 16 bits for a whole model.

    None where no formula counts what the method adds to the model.
    """
    what = described(method)
    if method == "prefix":  # the projection is thrown away when saving
        what = peftmemory.method("prefix", num_virtual_tokens=what.num_virtual_tokens)
    if model in SPECIAL and METHODS[method].family == "lora":
        return None  # the target names are those of Llama
    try:
        count = peftmemory.parameters(model, what).trainable
    except EstimateError:
        return None
    return count * (2 if method == "full" else 4)
