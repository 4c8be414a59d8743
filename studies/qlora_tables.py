"""What notebook 06 renders beside its own measurements: traced 4-bit steps, and rounding errors.

    pefthelpers fetch laptop
    python -m studies.qlora_tables     # about a CPU minute, no GPU

``qlora_peaks.json``: the peak of one training step of 8B, 65B and 70B on fake tensors, the closed form
beside it. ``qlora_errors.json``: relative squared error and entropy of the codes of NF4, FP4 and int4
against block size, on Gaussian numbers and on the linear layers of SmolLM2-135M and of the kitchen
decoder. Rows that are there are not computed again.
"""

import os
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bitsandbytes.functional as bnb
import torch

import peftmemory
from pefthelpers import models, session
from pefthelpers.paths import data_dir
from peftmemory import tracing
from studies.engine import Study

# As peft does it: everything that is not quantised in fp32, adapters in fp32, transformers' loss.
PEFT_WAY = {"prepare_kbit": True, "loss": "plain", "optimizer": "adamw_8bit"}
# As TRL 1.16 does it: nothing is cast up, adapters in bf16, the logits never exist as a whole.
TRL_WAY = {"autocast_adapter_dtype": False, "loss": "chunked", "optimizer": "adamw_8bit"}
CASES = [
    ("llama-3.1-8b", 64, 2048, "the article, as peft prepares it", PEFT_WAY),
    ("llama-3.1-8b", 64, 2048, "the article, as TRL prepares it", TRL_WAY),
    ("llama-65b", 64, 512, "65B, as TRL prepares it", TRL_WAY),
    ("llama-3.1-70b", 64, 512, "70B, as peft prepares it", PEFT_WAY),
    ("llama-3.1-70b", 64, 512, "70B, as TRL prepares it", TRL_WAY),
    ("llama-3.1-70b", 16, 512, "70B, as TRL prepares it", TRL_WAY),
]
BLOCKS = (32, 64, 128, 256, 512, 1024)
KINDS = ("nf4", "fp4", "int4")
SMOLLM2_LAYERS = (0, 10, 20, 29)


def peak(model: str, r: int, seq: int, options: dict) -> dict:
    """Trace one step of one sequence, checkpointed; return the peak by kind and the closed form's."""
    method = peftmemory.method("lora", r=r, lora_dropout=0.05, target_modules="all-linear")
    step = {"batch": 1, "seq": seq, "precision": "nf4", "checkpointing": True, **options}
    trace = tracing.trace_step(model, method, **step)
    return {
        "trainable": trace.trainable,
        "moment": trace.peak_moment,
        "bytes": trace.moments[trace.peak_moment],
        "traced_bytes": trace.peak,
        "closed_form_bytes": peftmemory.estimate(model, method, **step).peak,
    }


def peaks() -> None:
    """Trace every case."""
    study = Study(data_dir() / "results" / "qlora_peaks.json")
    for model, r, seq, way, options in CASES:
        key = {"model": model, "r": r, "seq": seq, "way": way}
        study.measure(lambda: peak(model, r, seq, options), **key)  # noqa: B023 - called here


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


def rounding(source: str, kind: str, block: int) -> dict:
    """Round to four bits; return relative squared error and the entropy of the codes in bits."""
    blocks = weights(source).reshape(-1, block)
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


def errors() -> None:
    """Round everything in every way."""
    study = Study(data_dir() / "results" / "qlora_errors.json")
    for source in ("Gaussian", "kitchen decoder", "SmolLM2-135M"):
        for kind in KINDS:
            for block in BLOCKS:
                key = {"weights_of": source, "kind": kind, "block": block}
                study.measure(lambda: rounding(source, kind, block), **key)  # noqa: B023


def main() -> None:
    """Compute what is not in the records yet."""
    torch.set_num_threads(1)
    session.quiet()
    errors()
    peaks()


if __name__ == "__main__":
    main()
