"""What notebook 06 renders beside its own measurements: traced 4-bit steps, and rounding errors.

    pefthelpers fetch laptop
    python -m studies.qlora_tables     # about a CPU minute, no GPU

``qlora_peaks.json``: the peak of one training step of 8B, 65B and 70B on fake tensors, the closed form
beside it. ``qlora_errors.json``: relative squared error and entropy of the codes of NF4, FP4 and int4
against block size, on Gaussian numbers and on the linear layers of SmolLM2-135M and of the kitchen
decoder. Rows that are there are not computed again.
"""

import itertools
from functools import cache

import bitsandbytes.functional as bnb
import torch

import peftmemory
from pefthelpers import models
from peftmemory import tracing
from studies import engine

# As peft does it: everything that is not quantised in fp32, adapters in fp32, transformers' loss.
PEFT_WAY = {"prepare_kbit": True, "loss": "plain", "optimizer": "adamw_8bit"}
# As TRL 1.16 does it: nothing is cast up, adapters in bf16, the logits never exist as a whole.
TRL_WAY = {"autocast_adapter_dtype": False, "loss": "chunked", "optimizer": "adamw_8bit"}
# model, r, seq, way: how it ends tells which of the two prepared it
CASES = [
    ("llama-3.1-8b", 64, 2048, "the article, as peft prepares it"),
    ("llama-3.1-8b", 64, 2048, "the article, as TRL prepares it"),
    ("llama-65b", 64, 512, "65B, as TRL prepares it"),
    ("llama-3.1-70b", 64, 512, "70B, as peft prepares it"),
    ("llama-3.1-70b", 64, 512, "70B, as TRL prepares it"),
    ("llama-3.1-70b", 16, 512, "70B, as TRL prepares it"),
]
BLOCKS = (32, 64, 128, 256, 512, 1024)
KINDS = ("nf4", "fp4", "int4")
SMOLLM2_LAYERS = (0, 10, 20, 29)


def peak(model: str, r: int, seq: int, way: str) -> dict:
    """Trace one step of one sequence, checkpointed; return the peak by kind and the closed form's."""
    method = peftmemory.method("lora", r=r, lora_dropout=0.05, target_modules="all-linear")
    prepared = PEFT_WAY if way.endswith("as peft prepares it") else TRL_WAY
    step = {"batch": 1, "seq": seq, "precision": "nf4", "checkpointing": True, **prepared}
    trace = tracing.trace_step(model, method, **step)
    return {
        "trainable": trace.trainable,
        "moment": trace.peak_moment,
        "bytes": trace.moments[trace.peak_moment],
        "traced_bytes": trace.peak,
        "closed_form_bytes": peftmemory.estimate(model, method, **step).peak,
    }


@cache
def weights(source: str) -> torch.Tensor:
    """Return numbers to round, shape (n,), n a multiple of the largest block."""
    if source == "Gaussian":
        return 0.02 * torch.randn(2**22, generator=torch.Generator().manual_seed(0))
    model, _ = models.load("decoder", "laptop" if source == "SmolLM2-135M" else "tiny")
    kept = SMOLLM2_LAYERS if source == "SmolLM2-135M" else range(len(model.model.layers))
    matrices = [
        p.detach() for i in kept for p in model.model.layers[i].parameters() if p.dim() == 2
    ]
    flat = torch.cat([matrix.float().flatten() for matrix in matrices])
    return flat[: len(flat) // BLOCKS[-1] * BLOCKS[-1]]


def rounding(weights_of: str, kind: str, block: int) -> dict:
    """Round to four bits; return relative squared error and the entropy of the codes in bits."""
    blocks = weights(weights_of).reshape(-1, block)
    absmax = blocks.abs().amax(1, keepdim=True)
    # int4: -7 to 7, so fifteen of the sixteen codes, symmetric as absmax scaling wants it.
    even = torch.arange(-7, 8) / 7
    levels = even if kind == "int4" else bnb.get_4bit_type(kind, device="cpu").unique()
    codes = torch.bucketize(blocks / absmax, (levels[1:] + levels[:-1]) / 2)
    error = levels[codes] * absmax - blocks
    share = torch.bincount(codes.flatten(), minlength=len(levels)) / codes.numel()
    share = share[share > 0]
    return {
        "weights": blocks.numel(),
        "error": (error.pow(2).mean() / blocks.pow(2).mean()).item(),
        "entropy_bits": -(share * share.log2()).sum().item(),
    }


def main() -> None:
    """Compute what is not in the records yet."""
    sources = ("Gaussian", "kitchen decoder", "SmolLM2-135M")
    engine.start("qlora_errors").measure_each(
        [
            {"weights_of": source, "kind": kind, "block": block}
            for source, kind, block in itertools.product(sources, KINDS, BLOCKS)
        ],
        rounding,
    )
    cases = [dict(zip(("model", "r", "seq", "way"), case, strict=True)) for case in CASES]
    engine.start("qlora_peaks").measure_each(cases, peak)


if __name__ == "__main__":
    main()
