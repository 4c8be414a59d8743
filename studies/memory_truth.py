"""Hold the estimates against what others and this collection measured on GPUs.

Run from the checkout: ``python -m studies.memory_truth``. Rows come from ``data/published`` and
``data/results/gpu_peaks*.json``. Each is a tune row, which may teach the slack, or a test row, which
only tests. What the closed form does not cover is traced, a row at a time, into
``data/results/memory_truth.json``; a row traced before is not traced again (``--again`` does).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from statistics import quantiles
from typing import Any

from pefthelpers import results
from pefthelpers.paths import data_dir
from peftmemory.cards import LEAST_CONTEXT_GIB, SLACK, verdict
from peftmemory.configs import load_config
from peftmemory.constants import GIB
from peftmemory.errors import EstimateError, NoFormulaError
from peftmemory.estimate import estimate
from studies.memory_cases import method_of

RESULT = data_dir() / "results" / "memory_truth.json"
MIB = 2**20
STEP = ("precision", "autocast", "optimizer", "checkpointing", "attention", "loss", "padding")
STEP += ("accumulation", "autocast_adapter_dtype", "free_outputs", "double_quant", "prepare_kbit")
# PEFT's runs share their data and its order, so they share their longest batch, which nobody recorded:
# the length that the eleven rows of peft_metamathqa.json imply in the median (memory_benchmark.json).
PEFT_LENGTH = 751


@dataclass(frozen=True)
class Measured:
    """A step that somebody measured; bytes, None where an instrument was not read.

    Attributes:
        source: which sheet.
        key: which row of it.
        role: tune or test.
        model: what ``load_config`` takes.
        method: a description, or PEFT's own configuration as a dict.
        step: batch, length and fields of ``StepSetting``.
        allocated: by tensors, as torch's allocator hands them out.
        reserved: what the allocator held.
        used: what the process or the whole card held, the CUDA context included.
    """

    source: str
    key: str
    role: str
    model: Any
    method: dict[str, Any]
    step: dict[str, Any]
    allocated: float | None = None
    reserved: float | None = None
    used: float | None = None
    note: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """Source and key."""
        return f"{self.source}: {self.key}"


def step_of(row: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return a row's step: batch, length and the fields of ``StepSetting`` that it names."""
    named = {name: row[name] for name in STEP if name in row}
    return {"batch": row["batch"], "seq": row["seq"], **others, **named}


def on_t4() -> Iterator[Measured]:
    """Yield FitCheck's rows of one Tesla T4."""
    sheet = results.read("fitcheck_t4")
    for row in sheet["rows"]:
        sizes = {name: row[f"{name}_mib"] * MIB for name in ("allocated", "reserved", "used")}
        yield Measured(
            "T4", row["key"], row["role"], sheet["models"][row["model"]], row["method"],
            t4_step(row), **sizes,
        )  # fmt: skip


def t4_step(row: dict[str, Any]) -> dict[str, Any]:
    """Return the step of a row of that sheet.

    A T4 has no fused kernel for grouped heads: FitCheck's runs repeat key and value heads themselves,
    which is what transformers does beside a mask.
    """
    nf4 = {"prepare_kbit": True, "double_quant": False} if row["precision"] == "nf4" else {}
    repeated = {"padding": row["attention"] == "sdpa"}
    return step_of(row, checkpointing=True, optimizer="adamw_torch", **nf4, **repeated)


def on_a100() -> Iterator[Measured]:
    """Yield fms-acceleration's rows of one A100."""
    sheet = results.read("fms_acceleration")
    for row in sheet["rows"]:
        model = row["model"]
        yield Measured(
            "A100", row["key"], row["role"], sheet["models"][model], row["method"],
            step_of(row, **sheet["setting"]["step"]),
            allocated=row["allocated_bytes"], used=row["used_mib"] * MIB, note=aside(model),
        )  # fmt: skip


def aside(model: str) -> str:
    """Return why a model's rows cannot agree with today's libraries; else nothing."""
    if "Mixtral" in model:
        return "transformers 5 keeps experts in 3-D tensors, which 4 bits leave alone; 4.48 did not"
    if "santacoder" in model:
        return "transformers 4.48 computed this family's loss in bf16, and kept its dropout's masks"
    return ""


def in_pefts_comparison() -> Iterator[Measured]:
    """Yield PEFT's rows on Llama-3.2-3B; what its allocator reserved over a whole run."""
    step = {"batch": 4, "seq": PEFT_LENGTH, "padding": True, "optimizer": "adamw_torch"}
    for row in results.read("peft_metamathqa")["rows"]:
        method = {"name": row["method"]} if isinstance(row["method"], str) else row["method"]
        reserved = row["peak_gb"] * 1e9
        yield Measured("PEFT", row["name"], "tune", "llama-3.2-3b", method, step, reserved=reserved)
    for row in results.read("peft_metamathqa_more")["rows"]:
        own = {"autocast_adapter_dtype": row["autocast_adapter_dtype"]}
        yield Measured(
            "PEFT", row["key"], row["role"], "llama-3.2-3b", row["peft_config"], step | own,
            reserved=row["reserved_bytes"],
        )  # fmt: skip


def on_our_gpus() -> Iterator[Measured]:
    """Yield this collection's own rows, of every record ``gpu_peaks*.json`` that is there."""
    for path in sorted((data_dir() / "results").glob("gpu_peaks*.json")):
        record = results.read(path)
        first = path.stem == "gpu_peaks_h200"  # looked at before there was a split
        for number, row in enumerate(record["rows"]):
            if "error" in row or (first and row.get("autocast")):
                continue
            method = described(row["method"]) if isinstance(row["method"], str) else row["method"]
            yield Measured(
                record["about"]["device"].removeprefix("NVIDIA "), str(number),
                "tune" if first else "test", row["model"], method, step_of(row),
                allocated=row["allocated"], reserved=row["reserved"], used=row.get("used"),
            )  # fmt: skip


def described(label: str) -> dict[str, Any]:
    """Return the method that a label of the first record names."""
    lora = {"lora all r16": (16, "all-linear"), "lora qv r8": (8, ["q_proj", "v_proj"])}
    if label not in lora:
        return {"name": label}
    return {"name": "lora", "r": lora[label][0], "target_modules": lora[label][1]}


def rows() -> list[Measured]:
    """Return every measured row."""
    return [*on_t4(), *on_a100(), *in_pefts_comparison(), *on_our_gpus()]


def in_pefts_words(method: dict[str, Any]) -> Any:
    """Return a method, light or as a configuration of the installed PEFT."""
    if "peft_type" not in method:
        return method_of(method)
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = PEFT_TYPE_TO_CONFIG_MAPPING.get(method["peft_type"])
    if kind is None:
        raise EstimateError(f"The installed PEFT has no {method['peft_type']}.")
    known = {name: method[name] for name in kind.__dataclass_fields__ if name in method}
    return kind(task_type="CAUSAL_LM", **{k: v for k, v in known.items() if k != "peft_type"})


def by_formula(row: Measured) -> int | None:
    """Return the closed form's peak in bytes, or None where it covers the row not."""
    try:
        return estimate(load_config(row.model), in_pefts_words(row.method), **row.step).peak
    except NoFormulaError:
        return None


def by_trace(row: Measured) -> dict[str, Any]:
    """Return the traced peak in bytes, or the sentence that says why there is none."""
    from peftmemory.tracing import trace_step

    try:
        return {"peak": trace_step(row.model, in_pefts_words(row.method), **row.step).peak}
    except (EstimateError, TypeError, ValueError) as error:
        return {"error": str(error)[:200]}


@cache
def traced() -> dict[str, dict[str, Any]]:
    """Return the recorded traces by a row's name."""
    return results.read(RESULT)["traced"] if RESULT.exists() else {}


@cache
def peaks() -> dict[str, int]:
    """Return the estimate of each row in bytes by its name: by formula, or as it was traced."""
    found = {row.name: by_formula(row) or traced().get(row.name, {}).get("peak") for row in rows()}
    return {name: peak for name, peak in found.items() if peak}


def predicted(row: Measured) -> int | None:
    """Return the estimate of a row in bytes; None if no formula covers it and no trace is recorded."""
    return peaks().get(row.name)


def ratios(role: str) -> dict[str, list[tuple[float, Measured]]]:
    """Return estimate over measurement of a role's rows, lowest first, by source and attention.

    Measured is what was allocated, or for PEFT's rows, of which no more is known, reserved.
    """
    found: dict[str, list[tuple[float, Measured]]] = {}
    for row in rows():
        if row.role == role and (peak := predicted(row)):
            name = f"{row.source}, {row.step.get('attention', 'sdpa')}"
            found.setdefault(name, []).append((peak / (row.allocated or row.reserved), row))
    return {name: sorted(each, key=lambda pair: pair[0]) for name, each in found.items()}


def held(role: str) -> list[tuple[float, Measured]]:
    """Return what the allocator held over the estimate, of a role's rows where it is known.

    PEFT's rows are left out, as their longest batch is not known, and those that today's libraries
    cannot agree with. Where only the card's figure was read, the least context is taken off.
    """
    found = []
    for row in rows():
        if row.role != role or row.source == "PEFT" or row.note or not (peak := predicted(row)):
            continue
        size = row.reserved or row.used - LEAST_CONTEXT_GIB * GIB
        found.append((size / peak, row))
    return found


def learned() -> tuple[float, float]:
    """Return the slack between which nine in ten tune rows lie: ``peftmemory.cards.SLACK``."""
    cuts = quantiles([ratio for ratio, _ in held("tune")], n=20)
    return round(cuts[0], 2), round(cuts[-1], 2)


def inside(role: str) -> tuple[int, int]:
    """Return how many of a role's rows lie in the stated interval, and how many there are."""
    found = held(role)
    return sum(SLACK[0] <= ratio <= SLACK[1] for ratio, _ in found), len(found)


def at_the_border() -> list[tuple[str, str, float, str]]:
    """Return FitCheck's runs at a T4's border: model and batch, peak in GiB, verdict, outcome."""
    sheet = results.read("fitcheck_t4")
    found = []
    for run in sheet["boundary"]["runs"]:
        model = sheet["models"][run["model"]]
        peak = estimate(model, method_of(run["method"]), **t4_step(run)).peak
        word = verdict(peak, sheet["boundary"]["card_mib"] * MIB / GIB)
        found.append((f"{run['model']} x {run['batch']}", peak / GIB, word, run["outcome"]))
    return found


def main() -> None:
    """Trace what has no formula, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="trace rows that are there, too")
    again = parser.parse_args().again
    record: dict[str, Any] = {"traced": dict(traced())}
    for row in rows():
        if by_formula(row) is None and (again or row.name not in record["traced"]):
            record["traced"][row.name] = by_trace(row)
            print(row.name, record["traced"][row.name], file=sys.stderr, flush=True)
            write(record)
    write(record)


def write(record: dict[str, Any]) -> None:
    """Write the traces, with the versions of the libraries that were traced."""
    record["what"] = "peaks in bytes of measured steps that no closed form covers, traced"
    record["versions"] = {name: version(name) for name in ("torch", "transformers", "peft")}
    results.write(RESULT, record)


if __name__ == "__main__":
    main()
