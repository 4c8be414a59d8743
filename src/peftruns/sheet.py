"""The table ``article.yaml`` and what a notebook takes from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pefthelpers import models, profiles

TABLE = yaml.safe_load(Path(__file__).with_name("article.yaml").read_text(encoding="utf-8"))
RUNS, MODELS = TABLE["runs"], TABLE["models"]


@dataclass(frozen=True)
class Run:
    """What one run loads, and its size.

    Attributes:
        model: a hub id or a folder, for ``from_pretrained``.
        revision: the hub's commit that was pinned; ``main`` where none is.
        batch: sequences per step on one device.
        accumulation: steps whose gradients are added up.
        checkpointing: gradient checkpointing.
        length: tokens per sequence at most.
        epochs: passes over the data.
        device: ``cpu`` or ``cuda``.
        dtype: torch dtype name of the weights, or of what 4-bit weights compute in.
        verdict: a sentence on the card's memory; empty on a CPU.
        peak_gib: what a full step was traced or computed to need; None on a CPU.
    """

    model: str
    revision: str
    batch: int
    accumulation: int
    checkpointing: bool
    length: int
    epochs: int
    device: str
    dtype: str
    verdict: str = ""
    peak_gib: float | None = None


def shape_of(model: str) -> str:
    """Return what ``peftmemory.load_config`` takes for a hub id or a folder."""
    return MODELS.get(model, {}).get("shape", model)


def revision_of(model: str) -> str:
    """Return a listed model's pinned revision; of another model its newest."""
    return MODELS.get(model, {}).get("revision", "main")


def small(name: str, model: str = "") -> Run:
    """Return a run's small form: the default profile's model, or the reader's, on the fixture."""
    chosen = model or models.folder_of(RUNS[name]["role"], profiles.settings(RUNS[name]["role"]))
    return Run(chosen, revision_of(chosen), device="cpu", dtype="float32", **TABLE["small"])


def steps_of(name: str, *, batch: int, accumulation: int) -> int:
    """Return the optimiser steps of a whole run."""
    run = RUNS[name]
    return -(-run["rows"] // (batch * accumulation)) * run["epochs"]


def way_options(name: str, way: dict[str, Any]) -> dict[str, Any]:
    """Return a step of a run as ``peftmemory.predict`` takes it: batch, seq, fields of a setting."""
    run = RUNS[name]
    step = {"batch": way["batch"], "seq": run["length"], "checkpointing": way["checkpointing"]}
    return step | {"accumulation": way["accumulation"] > 1} | run["step"]
