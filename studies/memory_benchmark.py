"""Check the memory formulas and the tracer against each other, real steps and published peaks.

Run from the checkout, one section at a time or all: ``python -m studies.memory_benchmark
[section ...]``. Every row is written to ``data/results/memory_benchmark.json`` as soon as it is
there; a row that is there already is not computed again (``--again`` computes it).
"""

import argparse
import json
import os
import resource
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1")

import torch

import peftmemory
from pefthelpers import results
from pefthelpers.paths import data_dir
from peftmemory.methods import read_method
from peftmemory.model_states import trained_bytes_each
from peftmemory.optimizers import state_bytes
from peftmemory.saved_tensors import saved_activations
from peftmemory.settings import StepSetting
from peftmemory.tracing import trace_step
from peftmemory.trained import trained_tensors
from studies.memory_cases import (
    LORA_ALL,
    LORA_QV,
    TOY,
    Case,
    comparisons,
    cut,
    key_of,
    measured_cases,
    method_of,
)
from studies.memory_claims import SEVEN, SEVEN_STEPS, SEVENTY_STEPS, STEP
from studies.memory_measure import measure_saved, measure_states, measure_step

RESULT = data_dir() / "results" / "memory_benchmark.json"
PUBLISHED = data_dir() / "published" / "peft_metamathqa.json"


def published() -> Iterator[dict[str, Any]]:
    """Yield the traced peak of every published row at the longest batch its setting allows."""
    for row in results.read(PUBLISHED)["rows"]:
        described = {"name": row["method"]} if isinstance(row["method"], str) else row["method"]
        yield {
            "key": row["name"],
            "compute": lambda described=described, row=row: published_row(described, row),
        }


def published_row(described: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Trace one published row."""
    method = method_of(described)
    trace = trace_step("llama-3.2-3b", method, batch=4, seq=768, padding=True)
    return {
        "traced_gb": trace.peak / 1e9,
        "published_gb": row["peak_gb"],
        "ratio": trace.peak / row.get("peak_bytes", row["peak_gb"] * 1e9),
        "peak_moment": trace.peak_moment,
        "accelerate_gb": accelerate_gb() if described["name"] == "full" else None,
    }


def closed_peak_gb(row: dict[str, Any], seq: int) -> float:
    """Return the closed form's peak of a published row at a length, in GB."""
    described = {"name": row["method"]} if isinstance(row["method"], str) else row["method"]
    options = {"batch": 4, "seq": seq, "padding": True}
    return peftmemory.estimate("llama-3.2-3b", method_of(described), **options).peak / 1e9


def add_closed_form(rows: dict[str, Any]) -> None:
    """Put the closed form beside the traced rows, and the length that would give the peak."""
    for row in results.read(PUBLISHED)["rows"]:
        if row["name"] not in rows:
            continue
        found, peak = rows[row["name"]], partial(closed_peak_gb, row)
        found["closed_form_gb"] = peak(768)
        found["closed_form_over_traced"] = peak(768) / found["traced_gb"]
        implied = bisect_left(range(1536), row["peak_gb"], lo=1, key=peak)
        found["length_at_which_the_formula_gives_the_published_peak"] = implied


def accelerate_gb() -> float:
    """Return ``accelerate estimate-memory``'s "Training using Adam" for the 3B model in bf16.

    It knows no PEFT method, no batch and no length; its bf16 figure is its fp16 one.
    """
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes

    from peftmemory.tracing.build import build_base

    setting = StepSetting(batch=1, seq=1)
    model = build_base(peftmemory.load_config("llama-3.2-3b"), setting, device="meta")
    total, _ = calculate_maximum_sizes(model.float())  # it starts from fp32 sizes
    return max(estimate_training_usage(total, "float16").values()) / 1e9


def closed_over_traced() -> Iterator[dict[str, Any]]:
    """Yield the closed form's peak over the traced one, case by case."""
    for case in comparisons():
        yield {"key": key_of(case), "compute": lambda case=case: compare(case)}


def compare(case: Case) -> dict[str, Any]:
    """Trace a case and put the closed form's peak over the traced one."""
    (name, layers), described, batch, seq, options = case
    model, method = cut(name, layers), method_of(described)
    trace = trace_step(model, method, batch=batch, seq=seq, **options)
    found = peftmemory.estimate(model, method, batch=batch, seq=seq, **options)
    return {
        "closed_form_gb": found.peak / 1e9,
        "traced_gb": trace.peak / 1e9,
        "ratio": found.peak / trace.peak,
        "closed_form_moment": found.peak_moment,
        "traced_moment": trace.peak_moment,
    }


def article() -> Iterator[dict[str, Any]]:
    """Yield the trace of every step behind the article's 7B table and its 70B arithmetic."""
    for row, steps in SEVEN_STEPS.items():
        for label, (method, options) in steps.items():
            step = (SEVEN, method, {**STEP, **options})
            yield {"key": f"7B, {row}, {label}", "compute": lambda step=step: article_row(*step)}
    for name, (model, method, options) in SEVENTY_STEPS.items():
        step = (model, method, {**STEP, **options})
        yield {"key": name, "compute": lambda step=step: article_row(*step)}


def article_row(model: str, method: Any, step: dict[str, Any]) -> dict[str, Any]:
    """Trace a step at full depth and put the closed form beside it."""
    traced = trace_step(model, method, **step).peak
    closed = peftmemory.estimate(model, method, **step).peak
    return {"closed_form_gb": closed / 1e9, "traced_gb": traced / 1e9, "ratio": closed / traced}


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
    found: dict[str, Any] = {"traced_bytes": trace.peak, "measured_bytes": measured}
    return {**found, "ratio": trace.peak / measured, "peak_moment": trace.peak_moment}


def exact() -> Iterator[dict[str, Any]]:
    """Yield saved activations and optimiser states, formula against real tensors, in bytes."""
    methods = [{"name": "full"}, LORA_QV, LORA_ALL, {"name": "houlsby"}, {"name": "pfeiffer"}]
    for described in methods:
        name = peftmemory.describe(method_of(described))
        yield {"key": f"saved, {name}", "compute": lambda d=described: saved_row(d)}
        for optimizer in ("adamw_torch", "adamw_8bit"):
            key = f"{optimizer} states, {name}"
            yield {"key": key, "compute": lambda d=described, o=optimizer: states_row(d, o)}


def saved_row(described: dict[str, Any]) -> dict[str, Any]:
    """Compare the tensors autograd keeps for a small Llama with the formula."""
    method = read_method(method_of(described))
    found = saved_activations(peftmemory.load_config(TOY), method, StepSetting(batch=2, seq=64))
    measured = measure_saved(TOY, method, batch=2, seq=64)
    return {"formula_bytes": sum(found.values()), "measured_bytes": measured}


def states_row(described: dict[str, Any], optimizer: str) -> dict[str, Any]:
    """Compare an optimiser's real states with the formula."""
    method, config = read_method(method_of(described)), peftmemory.load_config(TOY)
    each = trained_bytes_each(method, StepSetting(batch=1, seq=8))
    tensors = trained_tensors(config, method)
    formula = state_bytes(tensors, each, optimizer, vocab_size=config.vocab_size)
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
    "article": article,
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
    result = results.read(RESULT) if RESULT.exists() else {}
    for name in wanted.sections or SECTIONS:
        rows = result.setdefault(name, {})
        for case in SECTIONS[name]():
            if case["key"] in rows and not wanted.again:
                continue
            start = time.perf_counter()
            rows[case["key"]] = {**case["compute"](), "seconds": time.perf_counter() - start}
            write(result)
            print(name, case["key"], rows[case["key"]], file=sys.stderr, flush=True)


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Return each section's number of rows and its farthest ratio, named."""
    found: dict[str, Any] = {}
    for name in ("published", "closed_over_traced", "article", "traced_over_measured"):
        rows = result.get(name, {})
        if rows:
            worst = max(rows, key=lambda key: abs(rows[key]["ratio"] - 1))
            found[name] = {"rows": len(rows), "worst": worst, "ratio": rows[worst]["ratio"]}
    exact_rows = result.get("exact", {})
    equal = [row["formula_bytes"] == row["measured_bytes"] for row in exact_rows.values()]
    found["exact"] = {"rows": len(equal), "equal": sum(equal)}
    if result.get("published"):
        found["one_longest_batch"] = one_longest_batch(result["published"])
    return found


def one_longest_batch(rows: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios at one common length for all published rows.

    The runs share their data and its order, so they share their longest batch, which nobody
    recorded: the median of the lengths that the rows imply stands in for it. This is a fit of one
    number to all rows, not a prediction; it shows what the method itself explains.
    """
    lengths = sorted(
        r["length_at_which_the_formula_gives_the_published_peak"] for r in rows.values()
    )
    seq = lengths[len(lengths) // 2]
    rows_sheet = results.read(PUBLISHED)["rows"]
    ratios = {row["name"]: closed_peak_gb(row, seq) / row["peak_gb"] for row in rows_sheet}
    return {"seq": seq, "closed_form_over_published": ratios}


def write(result: dict[str, Any]) -> None:
    """Write the results with versions and date, atomically."""
    packages = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    result["date"] = datetime.now(timezone.utc).date().isoformat()
    add_closed_form(result.get("published", {}))
    result["summary"] = summary(result)
    result["versions"] = {name: version(name) for name in packages}
    # Sorted, whichever section was computed first.
    results.write(RESULT, json.loads(json.dumps(result, sort_keys=True)))


if __name__ == "__main__":
    main()
