"""Measure a training step's memory on a GPU, case by case: what the estimates have to meet.

``python -m studies.gpu_peaks --out FOLDER`` needs a GPU and torch, transformers and peft alone: every
model is built on the card from a committed shape with random weights. Rows are written to
``FOLDER/gpu_peaks.json`` one at a time; what no time was left for is named in ``not_run``. The
estimates are not in the record: ``studies.memory_truth`` computes them when it is read.
"""

import argparse
import gc
import os
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pefthelpers import results
from peftmemory.configs import load_config
from peftmemory.settings import StepSetting, read_setting
from peftmemory.tracing.build import build_model
from peftmemory.tracing.gpu_only import build_optimizer
from peftmemory.tracing.heads import batch_of
from peftmemory.tracing.step import forward, quiet
from studies.memory_cases import LORA_ALL, LORA_QV, Case, key_of, method_of

FUSED, CKPT = {"optimizer": "adamw_torch_fused"}, {"checkpointing": True}
AUTOCAST, EAGER, CHUNKED = {"autocast": True}, {"attention": "eager"}, {"loss": "chunked"}
MIXED = {"precision": "fp32", **AUTOCAST}
FULL, IA3, LN = {"name": "full"}, {"name": "ia3"}, {"name": "ln"}
PREFIX, HOULSBY = {"name": "prefix"}, {"name": "houlsby"}
ONE, THREE, EIGHT = "llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b"


def cases() -> Iterator[Case]:
    """Yield the cases, what matters most first; AdamW is fused unless a case says otherwise."""
    for group in (the_switches, the_families, the_sizes, the_lengths):
        for model, described, batch, seq, options in group():
            yield model, described, batch, seq, {**FUSED, **options}


def the_switches() -> Iterator[Case]:
    """Yield each method under each switch, on one small Llama."""
    for described in (FULL, LORA_ALL, IA3, LN, HOULSBY):
        for options in ({}, AUTOCAST, CKPT, {**AUTOCAST, **CKPT}):
            yield ONE, described, 2, 1024, options
    for described in (PREFIX, {"name": "prompt"}):
        for options in ({}, AUTOCAST):
            yield ONE, described, 2, 1024, options
    for described in (FULL, LORA_ALL):
        for switches in (EAGER, {**EAGER, **CKPT}, {**EAGER, **AUTOCAST}, CHUNKED):
            yield ONE, described, 2, 1024, switches
        yield ONE, described, 2, 1024, {**CHUNKED, **CKPT}
        yield ONE, described, 2, 1024, {"optimizer": "adamw_torch"}
        yield ONE, described, 2, 1024, {"free_outputs": True}
        yield ONE, described, 2, 1024, {"padding": True}
        yield ONE, described, 2, 1024, {"precision": "fp32"}
        yield ONE, described, 2, 1024, {"precision": "fp32", "padding": True}
        yield ONE, described, 2, 1024, MIXED
        yield ONE, described, 2, 1024, {**MIXED, **CKPT}
        yield ONE, described, 2, 1024, {"accumulation": True}
    yield ONE, LORA_ALL, 2, 1024, {"autocast_adapter_dtype": False}
    yield ONE, LORA_QV, 2, 1024, AUTOCAST
    yield ONE, {**LORA_QV, "name": "dora"}, 2, 1024, {}


def the_lengths() -> Iterator[Case]:
    """Yield lengths and batches around the switches' own."""
    for batch, seq in ((2, 512), (1, 2048), (2, 4096)):
        for described in (FULL, LORA_ALL):
            yield ONE, described, batch, seq, {**AUTOCAST, **CKPT}
    yield ONE, LORA_ALL, 1, 4096, {**EAGER, **CKPT}
    yield ONE, LORA_ALL, 1, 2048, EAGER
    yield ONE, LORA_ALL, 4, 2048, AUTOCAST


def the_sizes() -> Iterator[Case]:
    """Yield larger Llamas and two Qwen3."""
    for described in (FULL, LORA_ALL):
        for options in ({}, CKPT, AUTOCAST):
            yield THREE, described, 2, 1024, options
    yield EIGHT, FULL, 1, 2048, CKPT
    for options in (CKPT, {**AUTOCAST, **CKPT}, AUTOCAST, {**CHUNKED, **CKPT}):
        yield EIGHT, LORA_ALL, 1, 2048, options
    for described in (FULL, LORA_ALL, IA3):
        for options in ({}, AUTOCAST):
            yield "qwen3-0.6b", described, 2, 1024, options
    for options in (CKPT, {**AUTOCAST, **CKPT}):
        yield "qwen3-8b", LORA_ALL, 1, 2048, options


def the_families() -> Iterator[Case]:
    """Yield families that only a trace knows, dropout as published, and two other decoders."""
    lora = {"name": "lora", "r": 8}
    for model, batch, seq in (("roberta-base", 16, 512), ("t5-base", 8, 256), ("gpt2", 4, 1024)):
        for described in (FULL, lora):
            for options in ({}, MIXED):
                yield model, described, batch, seq, options
    yield "roberta-base", FULL, 16, 512, EAGER
    for model in ("gemma-3-4b", "mistral-7b-v0.3", "qwen2.5-7b", "phi-3-mini", "pythia-1.4b"):
        yield model, LORA_ALL, 1, 2048, CKPT
    yield "gemma-2-9b", LORA_ALL, 1, 1024, {**EAGER, **CKPT}
    yield "gemma-3-4b", LORA_ALL, 1, 2048, AUTOCAST
    yield "modernbert-base", FULL, 8, 512, {}
    yield "vit-base", FULL, 32, 1, {}
    yield "deepseek-v2-lite", LORA_QV | {"target_modules": ["q_proj", "o_proj"]}, 1, 1024, CKPT


class Gauge:
    """The card's own counters, in bytes."""

    def reset(self) -> None:
        """Give cached blocks back and begin new peaks."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peaks(self) -> dict[str, int]:
        """Return the peaks since the last call: what was asked for, what was handed out, what was held."""
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        torch.cuda.reset_peak_memory_stats()
        names = {"requested": "requested", "allocated": "allocated", "reserved": "reserved"}
        return {name: stats[f"{key}_bytes.all.peak"] for name, key in names.items()}

    def used(self) -> int:
        """Return what the whole card holds, the CUDA context included: nvidia-smi's figure."""
        free, total = torch.cuda.mem_get_info()
        return total - free

    def asked(self) -> int:
        """Return what is asked for now."""
        return torch.cuda.memory_stats()["requested_bytes.all.current"]


def measure(case: Case, gauge: Gauge, device: str = "cuda") -> dict[str, Any]:
    """Return what a case's second training step takes, moment by moment.

    Args:
        case: model, method, batch, length and options.
        gauge: what reads the counters.
        device: where the model is built.
    """
    model, described, batch, seq, options = case
    config, setting = load_config(model), read_setting(batch=batch, seq=seq, **options)
    with quiet(), torch.device(device):
        torch.manual_seed(0)
        built = build_model(config, method_of(described), setting, device=device)
        inputs = batch_of(config, setting)
    if "input_ids" in inputs:
        inputs["input_ids"].random_(0, config.vocab_size)
    trained = [each for each in built.parameters() if each.requires_grad]
    optimizer = build_optimizer(setting.optimizer, trained, config.vocab_size)
    gauge.reset()
    step(built, inputs, optimizer, setting, gauge)
    tensors, asked = known_bytes(built, inputs, optimizer), gauge.asked()
    start = time.perf_counter()
    moments = step(built, inputs, optimizer, setting, gauge)
    return {
        **{name: max(each[name] for each in moments.values()) for name in moments["forward"]},
        "moments": moments,
        "at_rest": {"tensors": tensors, "requested": asked},
        "used": gauge.used(),
        "trained": sum(each.numel() for each in trained),
        "step_s": round(time.perf_counter() - start, 3),
    }


def step(built, inputs, optimizer, setting: StepSetting, gauge: Gauge) -> dict[str, Any]:
    """Take one step, as a trace does; return the peaks of its moments."""
    moments: dict[str, Any] = {}
    gauge.peaks()
    for _ in range(2 if setting.accumulation else 1):
        outputs, loss = forward(built, inputs, setting)
        moments["forward"] = gauge.peaks()
        loss.backward()
        del outputs, loss
        moments["backward"] = gauge.peaks()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {**moments, "optimizer": gauge.peaks()}


def known_bytes(built, inputs, optimizer) -> int:
    """Return the bytes of weights, buffers, batch and optimiser states, each storage once."""
    states = [each for state in optimizer.state.values() for each in state.values()]
    tensors = [*built.parameters(), *built.buffers(), *inputs.values(), *states]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    return sum(each.nbytes() for each in storages.values() if each.device.type != "meta")


def row_of(case: Case, gauge: Gauge, device: str = "cuda") -> dict[str, Any]:
    """Return a case's row; what went wrong is a row too."""
    model, described, batch, seq, options = case
    row = {"model": model, "method": described, "batch": batch, "seq": seq, **options}
    start = time.perf_counter()
    try:
        row |= measure(case, gauge, device)
    except Exception as error:  # noqa: BLE001 - the next case can still be measured
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    return {**row, "seconds": round(time.perf_counter() - start, 2)}


def about() -> dict[str, Any]:
    """Return where and with what the rows were measured."""
    return {
        "what": "bytes of the second training step, random weights and tokens, models built on the"
        " card; requested, allocated and reserved are the peaks of torch's caching allocator, used"
        " is the whole card's after the step; the chunked loss is peftmemory's stand-in for TRL's",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "device": torch.cuda.get_device_name(),
        "device_bytes": torch.cuda.mem_get_info()[1],
        "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "default"),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "script": "python -m studies.gpu_peaks",
    }


def main() -> None:
    """Measure case by case until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the record")
    parser.add_argument("--limit-s", type=float, default=150, help="begin no case later (150)")
    wanted = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU here: this study measures one.")
    start, todo, gauge = time.perf_counter(), list(cases()), Gauge()
    record: dict[str, Any] = {"about": about(), "not_run": [], "rows": []}
    for case in todo:
        if time.perf_counter() - start > wanted.limit_s:
            record["not_run"].append(key_of(case))
            continue
        gauge.reset()
        record["rows"].append(row_of(case, gauge))
        results.write(wanted.out / "gpu_peaks.json", record)
        found = record["rows"][-1]
        print(key_of(case), found.get("allocated", found.get("error")), flush=True)
    results.write(wanted.out / "gpu_peaks.json", record)


if __name__ == "__main__":
    main()
