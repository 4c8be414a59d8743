"""Check the memory formulas and the tracer against each other, real steps and published peaks.

Run from the checkout, one section at a time or all: ``python data/scripts/memory_benchmark.py
[section ...]``. Every row is written to ``data/results/memory_benchmark.json`` as soon as it is
there; a row that is there already is not computed again (``--again`` computes it).
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1")

import torch

from pefthelpers import memory
from pefthelpers.memory.methods import read_method
from pefthelpers.memory.saved import saved_activations
from pefthelpers.memory.settings import Setting
from pefthelpers.memory.states import optimizer_bytes, trained_bytes_each, trained_tensors
from pefthelpers.paths import atomic_path, data_dir
from pefthelpers.tracing import measure_saved, measure_states, measure_step, trace_step

RESULT = data_dir() / "results" / "memory_benchmark.json"
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
    return memory.method(described["name"], **options)


def published() -> Iterator[dict[str, Any]]:
    """Yield the traced peak of every published row at the longest batch its setting allows."""
    sheet = json.loads((data_dir() / "published" / "peft_metamathqa.json").read_text())
    for row in sheet["rows"]:
        described = {"name": row["method"]} if isinstance(row["method"], str) else row["method"]
        yield {
            "key": row["name"],
            "compute": lambda described=described, row=row: published_row(described, row),
        }


def published_row(described: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Trace one published row; say at which length the formula would give the published peak."""
    method, options = method_of(described), {"padding": True}
    trace = trace_step("llama-3.2-3b", method, batch=4, seq=768, **options)
    peak = lambda seq: memory.estimate("llama-3.2-3b", method, batch=4, seq=seq, **options).peak
    target = row.get("peak_bytes", row["peak_gb"] * 1e9)
    implied = min(range(64, 1025), key=lambda seq: abs(peak(seq) - target))
    return {
        "traced_gb": trace.peak / 1e9,
        "published_gb": row["peak_gb"],
        "ratio": trace.peak / target,
        "peak_moment": trace.peak_moment,
        "closed_form_gb": peak(768) / 1e9,
        "length_at_which_the_formula_gives_the_published_peak": implied,
        "accelerate_gb": accelerate_gb() if described["name"] == "full" else None,
    }


def accelerate_gb() -> float:
    """Return ``accelerate estimate-memory``'s "Training using Adam" for the 3B model in bf16.

    It knows no PEFT method, no batch and no length; its bf16 figure is its fp16 one.
    """
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    from pefthelpers.tracing.build import build_base

    setting = Setting(batch=1, seq=1)
    model = build_base(memory.load_config("llama-3.2-3b"), setting, device="meta")
    total, _ = calculate_maximum_sizes(model.float())  # it starts from fp32 sizes
    return max(estimate_training_usage(total, "float16").values()) / 1e9


def comparisons() -> list[Case]:
    """Return the cases of closed form against trace: model, method, batch, length, options."""
    ckpt, chunk = {"checkpointing": True}, {"loss": "chunked"}
    full, prefix = {"name": "full"}, {"name": "prefix", "num_virtual_tokens": 30}
    small, mid, large = "smollm2-135m", "llama-3.2-1b", "llama-3.2-3b"
    return [
        (small, full, 4, 512, {}),
        (small, full, 4, 512, {"precision": "fp32"}),
        (small, full, 4, 512, {"precision": "fp32", "autocast": True}),
        (small, full, 4, 512, {"precision": "fp32", "autocast": True, "accumulation": True}),
        (small, full, 4, 512, {**ckpt, **chunk}),
        (small, full, 8, 1024, {"attention": "eager"}),
        (small, LORA_ALL, 8, 1024, ckpt),
        (small, LORA_ALL, 8, 1024, {**ckpt, **chunk}),
        (small, LORA_ALL, 2, 512, {"autocast": True}),
        (small, {"name": "houlsby"}, 4, 512, {}),
        (small, {"name": "pfeiffer"}, 4, 512, {}),
        (small, {"name": "pfeiffer"}, 4, 512, {**ckpt, **chunk}),
        (small, {"name": "prompt", "num_virtual_tokens": 100}, 4, 512, {}),
        (small, {**LORA_ALL, "lora_dropout": 0.05}, 4, 512, {}),
        ("qwen3-0.6b", full, 2, 512, {"optimizer": "adamw_8bit"}),
        ("qwen3-0.6b", LORA_ALL, 2, 1024, {"padding": True}),
        (mid, full, 2, 1024, {"optimizer": "adamw_torch_fused"}),
        (mid, full, 2, 1024, {"optimizer": "adamw_8bit", **ckpt, **chunk}),
        (mid, full, 1, 256, {"accumulation": True}),
        (mid, LORA_QV, 4, 1024, {}),
        (mid, LORA_ALL, 4, 1024, {"autocast_adapter_dtype": False}),
        (mid, LORA_ALL, 4, 1024, {"precision": "nf4", **ckpt, **chunk}),
        (mid, prefix, 4, 512, {}),
        (mid, {"name": "ia3"}, 4, 512, {}),
        (mid, {"name": "ln"}, 4, 512, {"padding": True}),
        (mid, {**LORA_QV, "name": "dora"}, 4, 512, {}),
        (mid, LORA_ALL, 2, 1024, {"precision": "nf4", "prepare_kbit": True, **ckpt}),
        (large, full, 4, 768, {"accumulation": True}),
        (large, LORA_ALL, 4, 768, {}),
        ("llama-2-7b", LORA_QV, 1, 2048, ckpt),
        ("llama-2-7b", LORA_QV, 1, 2048, {"attention": "eager"}),
        ("llama-3.1-8b", {**LORA_ALL, "r": 64}, 1, 2048, {"precision": "nf4", **ckpt, **chunk}),
        ("llama-3.1-8b", full, 1, 2048, {"optimizer": "adamw_torch_fused", **ckpt}),
    ]


def closed_over_traced() -> Iterator[dict[str, Any]]:
    """Yield the closed form's peak over the traced one, case by case."""
    for case in comparisons():
        yield {"key": key_of(case), "compute": lambda case=case: compare(case, memory.estimate)}


def compare(case: Case, other: Callable[..., Any]) -> dict[str, Any]:
    """Trace a case and put another way of finding the peak over it."""
    model, described, batch, seq, options = case
    method = method_of(described)
    trace = trace_step(model, method, batch=batch, seq=seq, **options)
    found = other(model, method, batch=batch, seq=seq, **options)
    return {
        "closed_form_gb": found.peak / 1e9,
        "traced_gb": trace.peak / 1e9,
        "ratio": found.peak / trace.peak,
        "closed_form_moment": found.peak_moment,
        "traced_moment": trace.peak_moment,
    }


def key_of(case: Case) -> str:
    """Return a case in one line."""
    model, described, batch, seq, options = case
    name = "small Llama" if isinstance(model, dict) else model
    words = [f"{key}={value}" for key, value in options.items()]
    return " ".join([name, memory.describe(method_of(described)), f"{batch}x{seq}", *words])


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
        ("smollm2-135m", method, 1, 256, options)
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


def traced_over_measured() -> Iterator[dict[str, Any]]:
    """Yield the traced peak over the allocator's, for steps that run here with real tensors."""
    for case in measured_cases():
        yield {"key": key_of(case), "compute": lambda case=case: measure(case)}


def measure(case: Case) -> dict[str, Any]:
    """Trace a case and run it for real."""
    model, described, batch, seq, options = case
    method = method_of(described)
    trace = trace_step(model, method, batch=batch, seq=seq, **options)
    measured = measure_step(model, method, batch=batch, seq=seq, **options)
    found = {"traced_bytes": trace.peak, "measured_bytes": measured}
    return {**found, "ratio": trace.peak / measured, "peak_moment": trace.peak_moment}


def exact() -> Iterator[dict[str, Any]]:
    """Yield saved activations and optimiser states, formula against real tensors, in bytes."""
    methods = [{"name": "full"}, LORA_QV, LORA_ALL, {"name": "houlsby"}, {"name": "pfeiffer"}]
    for described in methods:
        name = memory.describe(method_of(described))
        yield {"key": f"saved, {name}", "compute": lambda d=described: saved_row(d)}
        for optimizer in ("adamw_torch", "adamw_8bit"):
            key = f"{optimizer} states, {name}"
            yield {"key": key, "compute": lambda d=described, o=optimizer: states_row(d, o)}


def saved_row(described: dict[str, Any]) -> dict[str, Any]:
    """Compare the tensors autograd keeps for a small Llama with the formula."""
    method = read_method(method_of(described))
    found = saved_activations(memory.load_config(TOY), method, Setting(batch=2, seq=64))
    measured = measure_saved(TOY, method, batch=2, seq=64)
    return {"formula_bytes": sum(found.values()), "measured_bytes": measured}


def states_row(described: dict[str, Any], optimizer: str) -> dict[str, Any]:
    """Compare an optimiser's real states with the formula."""
    method, config = read_method(method_of(described)), memory.load_config(TOY)
    each = trained_bytes_each(method, Setting(batch=1, seq=8))
    formula = optimizer_bytes(trained_tensors(config, method), each, optimizer)
    measured = measure_states(TOY, method, batch=1, seq=8, optimizer=optimizer)
    return {"formula_bytes": formula, "measured_bytes": measured}


def cost() -> Iterator[dict[str, Any]]:
    """Yield what a trace costs: CPU seconds and the process's largest resident memory."""
    for model in ("llama-3.1-8b", "llama-3.1-70b"):
        yield {"key": f"{model} LoRA r=16 all-linear", "compute": lambda m=model: cost_row(m)}


def cost_row(model: str) -> dict[str, Any]:
    """Trace a LoRA step of a model and say what it took."""
    start = time.process_time()
    options = {"batch": 1, "seq": 1024, "checkpointing": True}
    trace = trace_step(model, method_of(LORA_ALL), **options)
    spent = time.process_time() - start
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"traced_gb": trace.peak / 1e9, "cpu_s": spent, "process_rss_gb": resident / 1e9}
    return {**found, "load_average": os.getloadavg()[0]}


SECTIONS = {
    "published": published,
    "closed_over_traced": closed_over_traced,
    "traced_over_measured": traced_over_measured,
    "exact": exact,
    "cost": cost,
}


def main() -> None:
    """Compute what is missing and write it down row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []])
    parser.add_argument("--again", action="store_true", help="compute rows that are there, too")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in wanted.sections or SECTIONS:
        rows = result.setdefault(name, {})
        for case in SECTIONS[name]():
            if case["key"] in rows and not wanted.again:
                continue
            start = time.perf_counter()
            rows[case["key"]] = {**case["compute"](), "seconds": time.perf_counter() - start}
            write(result)
            print(name, case["key"], rows[case["key"]], file=sys.stderr, flush=True)


def write(result: dict[str, Any]) -> None:
    """Write the results with versions and date, atomically."""
    packages = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    result["date"] = datetime.now(timezone.utc).date().isoformat()
    result["versions"] = {name: version(name) for name in packages}
    with atomic_path(RESULT) as path:
        path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
